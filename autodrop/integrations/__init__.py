"""AutoDrop in other people's training loops. Each module needs its extra, and imports no other.

    autodrop[lightning]       autodrop.integrations.lightning.AutoDropCallback
                                          autodrop.integrations.pytorch_lightning.AutoDropCallback
    autodrop[transformers]    autodrop.integrations.transformers.AutoDropTrainer
    autodrop[tensorboard]     autodrop.integrations.tensorboard.ScalarLog

Accelerate needs no adapter: its `prepare` takes an `AutoDrop` as it takes any torch scheduler.

    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    scheduler = accelerator.prepare(AutoDrop(optimizer, window=64))
    for x, y in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_function(model(x), y))
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()

The scheduler is made after the first `prepare`, which gives the parameters their device and their
shards. `scheduler.scheduler` is then the `AutoDrop`, with its angles and drops. Micro-batches,
updates that a gradient scaler skips, and the calls that Accelerate repeats for each process do not
count; `save_state` and `load_state` take the scheduler along.

With several optimizers and a gradient scaler, make each scheduler of torch's own optimizer,
`AutoDrop(optimizer.optimizer)`: otherwise Accelerate skips all schedulers when one optimizer skips
its update.
"""

__all__: list[str] = []
