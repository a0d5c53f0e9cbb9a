"""Token buckets: how full they are, and when the next may be taken."""

from __future__ import annotations

from reconciler.agents.rates import Bucket


def test_share_falls_with_each_one_taken_and_comes_back() -> None:
    """A full bucket is 1, an empty one 0, and time fills it up to 1 again."""
    bucket = Bucket(4, 2)
    shares = [bucket.share(0.0)]
    for _ in range(4):
        bucket.take(0.0)
        shares.append(bucket.share(0.0))
    assert shares == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert bucket.take(0.0) == 0.5
    assert [bucket.share(now) for now in (1.0, 2.0, 100.0)] == [0.5, 1.0, 1.0]
