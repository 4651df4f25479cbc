"""A test bed with a known truth for rules that drop the learning rate.

    from theory.testbed import roster, suite
    from theory.testbed.bench import run_instance

    instance = suite.quadratic_instances(quick=True)[0]
    outcome = run_instance(instance, "sgd", roster.contenders(recommended=True),
                           horizons=[2000], trajectories=25, seed=0)
    outcome.risk.mean(axis=1) / outcome.oracle.risks      # regret of every rule

contenders          the interface of a rule: what it sees, what it returns
worlds, suite       stochastic gradients with an exact risk; the named instances
engine              many contenders on the same noise
published           AutoDrop's rules, vectorised, and any `autodrop.rules.Rule` as it is
sensors, stationarity, plateau      the rivals
open_loop, oracles  schedules by formula and the best schedule, by their exact risk
stages              when the risk of a stage was at its floor
equivariance, audit, controls       does a rule sense, does it peek, does it keep its level
bench, scores       one instance; regrets and their intervals
roster              who competes, at which settings

`python -m paper_checks.testbed` makes the score table.
"""
