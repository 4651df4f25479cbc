"""The published rules, slow and literal: an oracle that shares no code with the package.

Everything is recomputed from the list of all iterates, in exact rational arithmetic up to one
square root and one arc tangent. Angles are degrees throughout, None where there is none.
"""

import math
from fractions import Fraction

import numpy as np


def angle(u, v):
    """∠(u, v) in degrees; None if u or v is zero."""
    u, v = [Fraction(a) for a in u], [Fraction(b) for b in v]
    uu = sum(a * a for a in u)
    vv = sum(b * b for b in v)
    uv = sum(a * b for a, b in zip(u, v, strict=True))
    if uu == 0 or vv == 0:
        return None
    cos2 = uv * uv / (uu * vv)
    sin, cos = math.sqrt(1 - cos2), math.sqrt(cos2)
    return math.degrees(math.atan2(sin, cos if uv >= 0 else -cos))


def window_mean(iterates, i, k):
    """y_i: the mean of x_t over t = ik … (i+1)k−1."""
    window = [iterates[t] for t in range(i * k, (i + 1) * k)]
    return [sum(Fraction(a) for a in entry) / k for entry in zip(*window, strict=True)]


def velocity(y2, y1, y0):
    """∠(y2 − y1, y1 − y0)."""
    return angle(
        [a - b for a, b in zip(y2, y1, strict=True)], [a - b for a, b in zip(y1, y0, strict=True)]
    )


def window_angle(iterates, i, k):
    """ω_i, from the windows i, i − 1, i − 2."""
    return velocity(*(window_mean(iterates, j, k) for j in (i, i - 1, i - 2)))


def smoothed(buffer, m, smoothing):
    """Algorithm 1's C: the last of the buffer under a Gaussian of width min(std, m/2)."""
    mean = sum(buffer) / len(buffer)
    sigma = min(math.sqrt(sum((b - mean) ** 2 for b in buffer) / len(buffer)), m / 2)
    if sigma < 1e-12:  # all angles equal, but for the rounding of their mean
        return buffer[-1]
    numerator = denominator = 0.0
    for position, value in enumerate(buffer):
        age = len(buffer) - 1 - position
        distance = age if smoothing == "time" else buffer[-1] - value
        weight = math.exp(-(distance**2) / (2 * sigma**2))
        numerator += weight * value
        denominator += weight
    return numerator / denominator


def uai_drops(angles, threshold=0.1, m=10, smoothing="time", test="signed"):
    """Indices of the angles at which Algorithm 1 drops the rate."""
    drops, B, C = [], [], []
    for i, omega in enumerate(angles):
        B.append(omega)
        if len(B) == m:
            C.append(smoothed(B, m, smoothing))
            B.pop(0)
            if len(C) >= 2:
                change = C[-1] - C[-2]
                if (abs(change) if test == "absolute" else change) < threshold:
                    drops.append(i)
                    B, C = [], []
    return drops


def nqm_drops(angles, threshold=0.01, length=20, test="absolute"):
    """Indices of the angles at which Section 3's rule drops the rate."""
    drops, seen = [], []
    for i, omega in enumerate(angles):
        seen.append(omega)
        if len(seen) > length:
            change = sum(seen[-length:]) / length - sum(seen[-length - 1 : -1]) / length
            if (abs(change) if test == "absolute" else change) < threshold:
                drops.append(i)
                seen = []
    return drops


def arxiv_drops(angles, threshold=0.01, max_threshold=1.0, factor=0.2, wait=20):
    """Indices of the angles (None: an epoch without one) at which the arXiv rule drops the rate."""
    drops, previous, count = [], None, 0
    for i, omega in enumerate(angles):
        if count > 0:
            count += 1
        elif omega is not None and previous is not None and abs(omega - previous) < threshold:
            count = 1
        if omega is not None:
            previous = omega
        if count > 0 and count >= wait:
            drops.append(i)
            count = 0
            threshold = min(max_threshold, threshold / factor)
    return drops


def train(update, start, rate, iterations, k, decide, factor, floor):
    """Algorithm 1's loop with any `decide(angles) -> indices of drops`: rates, angles, drops.

    Drops are (updates done, old rate, new rate).
    """
    iterates, angles, rates, drops = [start], [], [], []
    for t in range(1, iterations + 1):
        rates.append(rate)
        iterates.append(update(t - 1, rate))
        if t % k == 0 and t // k >= 3:
            angles.append(window_angle(iterates, t // k - 1, k))
            if len(angles) - 1 in decide(angles):
                lowered = max(floor, factor * rate) if rate > floor else rate
                if lowered != rate:
                    drops.append((t, rate, lowered))
                rate = lowered
    return rates, angles, drops


def train_by_epochs(
    update, assign, start, rate, epochs, k, factor, floor, threshold, max_threshold, wait, average
):
    """The epoch loop of arXiv 2111.15317: rates, angles, drops, last iterate."""
    rates, angles, drops = [], [], []
    snapshots, previous, count, waiting = [], None, 0, []
    x, t = start, 0
    for _ in range(epochs):
        for batch in range(k):
            rates.append(rate)
            x = update(t, rate)
            t += 1
            if batch == 0:
                snapshots.append(x)
                omega = velocity(*snapshots[:-4:-1]) if len(snapshots) >= 3 else None
                if omega is not None:
                    angles.append(omega)
                if count > 0:
                    count += 1
                elif omega is not None and previous is not None:
                    count = 1 if abs(omega - previous) < threshold else 0
                previous = previous if omega is None else omega
            if batch == 1 and count > 0:
                waiting.append(x)
                if count == wait:
                    lowered = max(floor, factor * rate) if rate > floor else rate
                    if lowered != rate:
                        drops.append((t, rate, lowered))
                    rate, count = lowered, 0
                    threshold = min(max_threshold, threshold / factor)
                    if average:
                        weights = range(1, len(waiting) + 1)
                        x = [
                            sum(w * a for w, a in zip(weights, entry, strict=True)) / sum(weights)
                            for entry in zip(*waiting, strict=True)
                        ]
                        assign(x)
                        snapshots = []
                    waiting = []
    return rates, angles, drops, x


class Float64Angles:
    """ω_i of tensors in float64: for vectors too long for `window_angle`.

    `update` after each update gives ω_i in degrees where a window ends, else None. Deviations from
    x_0 are exact but for 2⁻⁵³ of them. stride: only x_t with t divisible by it are averaged.
    """

    def __init__(self, params, k, observation="mean", stride=1):
        self.params, self.k, self.observation, self.stride = params, k, observation, stride
        self.start = np.zeros(1)
        self.start = self.deviation()
        self.t, self.window, self.means = 0, [], []
        if observation == "mean":
            self.window.append(self.deviation())

    def deviation(self):
        parts = [p.detach().double().reshape(-1).numpy() for p in self.params]
        return np.concatenate(parts) - self.start

    def update(self):
        self.t += 1
        if self.observation == "snapshot":
            if self.t % self.k != 1:
                return None
            self.means.append(self.deviation())
        else:
            ended = self.t % self.k == 0
            if ended:
                self.means.append(np.mean(self.window, axis=0))
                self.window = []
            if self.t % self.stride == 0:
                self.window.append(self.deviation())
            if not ended:
                return None
        self.means = self.means[-3:]
        if len(self.means) < 3 or not np.isfinite(self.means).all():
            return None
        v, u = np.diff(self.means, axis=0)
        û, v̂ = u / np.linalg.norm(u), v / np.linalg.norm(v)
        return math.degrees(2 * math.atan2(np.linalg.norm(û - v̂), np.linalg.norm(û + v̂)))
