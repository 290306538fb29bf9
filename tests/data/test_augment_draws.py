"""Random parameters of the augmentation, compared with the distributions of the original's formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from data.augment import base, colour
from data.augment.geometry import Margins, crop_window, draw_margins, letterbox_margins
from data.augment.mixing import QUADRANTS, draw_mosaic_cut, margins_to_corner, quadrant_placement
from utils.net_options import AugmentOptions

COUNT = 4000
LEAST_P = 1e-4


def _samples(draw, count: int = COUNT, seed: int = 5) -> np.ndarray:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    return np.array([draw(rng) for _ in range(count)])


def _scale_cdf(limit: float):  # type: ignore[no-untyped-def]
    """Distribution that is uniform on [1, limit] half of the time, and the inverse of that otherwise."""

    def cdf(value: np.ndarray) -> np.ndarray:
        above = np.clip((value - 1) / (limit - 1), 0, 1)
        below = np.clip((limit - 1 / np.maximum(value, 1e-9)) / (limit - 1), 0, 1)
        return 0.5 * above + 0.5 * below

    return cdf


@pytest.mark.parametrize("limit", [1.4, 1.5, 3.0])
def test_scale_follows_its_distribution(limit: float) -> None:
    values = _samples(lambda rng: base.scale(rng, limit))
    assert values.min() >= 1 / limit and values.max() <= limit
    assert stats.kstest(values, _scale_cdf(limit)).pvalue > LEAST_P
    assert (values > 1).mean() == pytest.approx(0.5, abs=0.03)


def test_scale_of_one_changes_nothing() -> None:
    assert set(_samples(lambda rng: base.scale(rng, 1.0), 50)) == {1.0}


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.1), (0.1, -0.1), (2.0, 5.0)])
def test_uniform_accepts_bounds_in_any_order(low: float, high: float) -> None:
    values = _samples(lambda rng: base.uniform(rng, low, high))
    assert stats.kstest(values, stats.uniform(min(low, high), abs(high - low)).cdf).pvalue > LEAST_P


def test_whole_includes_both_ends() -> None:
    values = _samples(lambda rng: base.integer(rng, 5, 2))
    assert stats.chisquare(np.bincount(values, minlength=6)[2:]).pvalue > LEAST_P


def test_distortions_are_drawn_independently() -> None:
    drawn = _samples(
        lambda rng: tuple(
            vars(colour.draw_distortion(rng, AugmentOptions(hue=0.1, saturation=1.5, exposure=1.3))).values()
        )
    )
    assert stats.kstest(drawn[:, 0], stats.uniform(-0.1, 0.2).cdf).pvalue > LEAST_P
    assert stats.kstest(drawn[:, 1], _scale_cdf(1.5)).pvalue > LEAST_P
    assert stats.kstest(drawn[:, 2], _scale_cdf(1.3)).pvalue > LEAST_P
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.06


def _margins(jitter: float, resize: float, size: tuple[int, int] = (1000, 600)) -> np.ndarray:
    return _samples(lambda rng: tuple(vars(draw_margins(rng, size, jitter=jitter, resize=resize)).values()))


def test_jitter_moves_each_side_uniformly_and_alone() -> None:
    left, right, top, bottom = _margins(0.3, 1.0).T
    for side, reach in ((left, 300), (right, 300), (top, 180), (bottom, 180)):
        assert np.abs(side).max() <= reach
        assert (
            stats.kstest(
                side + np.random.default_rng(0).random(COUNT) - 0.5, stats.uniform(-reach, 2 * reach).cdf
            ).pvalue
            > LEAST_P
        )
    assert np.abs(np.corrcoef(np.stack([left, right, top, bottom])) - np.eye(4)).max() < 0.06


@pytest.mark.parametrize(
    ("resize", "least", "most"),
    [(1.5, 1000 * (1 - 1.5) / 2, 1000 * (1 - 1 / 1.5) / 2), (0.5, 1000 * (1 - 2) / 2, 0.0), (1.0, 0.0, 0.0)],
)
def test_resize_shares_one_draw_between_left_and_top(resize: float, least: float, most: float) -> None:
    left, right, top, bottom = _margins(0.0, resize).T
    assert left.min() >= int(least) and left.max() <= int(most)
    assert left.mean() == pytest.approx((least + most) / 2, abs=8)
    if resize != 1:
        assert stats.kstest(left + 0.5 * np.sign(left), stats.uniform(least, most - least).cdf).pvalue > LEAST_P
        assert np.corrcoef(left, top)[0, 1] > 0.999 and np.corrcoef(right, bottom)[0, 1] > 0.999
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.06


def _transcribed_margins(width: int, jitter: float, resize: float, r1: float, shared: float) -> int:
    """One side as load_data_detection computes it, step by step."""
    reach = int(width * jitter)
    down, up = resize, resize
    if down > 1:
        down = 1 / down
    least = int(width * (1 - (1 / down)) / 2)
    if up < 1:
        up = 1 / up
    most = int(width * (1 - (1 / up)) / 2)
    margin = int(r1 * (reach + reach) - reach)
    top = 0 if resize < 1 else most
    return int(margin + (shared * (top - least) + least))


@pytest.mark.parametrize("resize", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("seed", range(5))
def test_margins_step_by_step(resize: float, seed: int) -> None:
    margins = draw_margins(np.random.default_rng(seed), (640, 480), jitter=0.25, resize=resize)
    rng = np.random.default_rng(seed)
    side, shared = rng.random(4), rng.random(2)
    expected = [
        _transcribed_margins(length, 0.25, resize, side[i], shared[i % 2])
        for i, length in enumerate((640, 640, 480, 480))
    ]
    assert list(vars(margins).values()) == expected


@pytest.mark.parametrize(
    ("size", "net", "expected"),
    [
        ((640, 480), (416, 416), Margins(left=10, right=-5, top=-80, bottom=-80)),
        ((300, 600), (416, 416), Margins(left=-140, right=-155, top=0, bottom=0)),
        ((640, 480), (640, 480), Margins(left=10, right=-5, top=0, bottom=0)),
    ],
)
def test_letterbox_adds_to_the_short_side(size: tuple[int, int], net: tuple[int, int], expected: Margins) -> None:
    assert letterbox_margins(Margins(left=10, right=-5, top=0, bottom=0), size, net) == expected


def test_margins_that_leave_nothing_are_ignored() -> None:
    window = crop_window(Margins(left=60, right=60, top=0, bottom=0), (100, 80), flip=True)
    assert (window.left, window.top, window.width, window.height, window.flip) == (0, 0, 100, 80, True)


def test_blur_kinds_are_equally_likely() -> None:
    kinds = _samples(lambda rng: colour.draw_blur(rng, 9))
    assert stats.chisquare([(kinds == kind).sum() for kind in (0, 1, 9)]).pvalue > LEAST_P
    assert set(_samples(lambda rng: colour.draw_blur(rng, 0), 20)) == {0}


def test_noise_is_added_half_of_the_time_and_is_bounded() -> None:
    deviations = _samples(lambda rng: colour.draw_noise(rng, 200))
    assert set(deviations) == {0, 127}
    assert (deviations > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_noise_only_brightens() -> None:
    grey = np.full((200, 200, 3), 100, np.uint8)
    added = colour.add_noise(grey, 20, np.random.default_rng(0)).astype(int) - 100
    assert added.min() == 0
    assert added.mean() == pytest.approx(20 / np.sqrt(2 * np.pi), abs=0.2)
    assert (added == 0).mean() == pytest.approx(stats.norm.cdf(0.5 / 20), abs=0.01)


def test_mosaic_cut_is_uniform_in_the_middle() -> None:
    cuts = _samples(lambda rng: draw_mosaic_cut(rng, (416, 320)))
    assert cuts.min(axis=0).tolist() == [83, 64] and cuts.max(axis=0).tolist() == [332, 256]
    assert stats.chisquare(np.bincount(cuts[:, 0])[83:]).pvalue > LEAST_P
    assert abs(np.corrcoef(cuts.T)[0, 1]) < 0.06


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_mosaic_corner_and_shift_as_in_the_original(quadrant: int, flip: bool) -> None:
    pleft, pright, ptop, pbot = -40, 25, 10, -30
    moved = margins_to_corner(Margins(left=pleft, right=pright, top=ptop, bottom=pbot), quadrant, flip=flip)
    if (quadrant in (0, 2)) == flip:
        pleft, pright = pleft + pright, 0
    else:
        pleft, pright = 0, pleft + pright
    ptop, pbot = (0, ptop + pbot) if quadrant < 2 else (ptop + pbot, 0)
    assert (moved.left, moved.right, moved.top, moved.bottom) == (pleft, pright, ptop, pbot)

    if flip:
        pleft, pright = pright, pleft
    width, height, cut_x, cut_y, ow, oh = 416, 320, 200, 90, 500, 400
    left_shift, right_shift = (
        min(cut_x, max(0, -pleft * width // ow)),
        min(width - cut_x, max(0, -pright * width // ow)),
    )
    top_shift, bot_shift = min(cut_y, max(0, -ptop * height // oh)), min(height - cut_y, max(0, -pbot * height // oh))
    where = quadrant_placement(
        moved, quadrant, flip=flip, size_wh=(ow, oh), net_wh=(width, height), cut_xy=(cut_x, cut_y)
    )
    rows, columns = where.source
    assert columns.start == (left_shift if quadrant & 1 else width - cut_x - right_shift)
    assert rows.start == (top_shift if quadrant & 2 else height - cut_y - bot_shift)
    assert columns.stop - columns.start == (width - cut_x if quadrant & 1 else cut_x)
    assert rows.start >= 0 and rows.stop <= height and columns.start >= 0 and columns.stop <= width
