"""Pictures of the dirac game: trajectories over the vector field, over time, and in parameter space."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import animation
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.signal import find_peaks

from dirac import Game, Trajectory
from lab import figures
from lab.files import atomic_write
from question2 import dirac_theory

FIRST_UPDATES = 300  # one turn of JSD's game, five of W1's
FEW_TURNS = 40  # more turns cannot be told apart in a panel
FILM_UPDATES = 1500  # some turns of the slowest game
SLOPE, POINT = "critic's slope $\\psi_0$", "generated point $\\theta$"


def first_of(game: Game, trajectory: Trajectory, limit: float = 20.0) -> Trajectory:
    """The first of the games, θ ``(T,)``, ψ ``(T, 2)``, until it leaves a cube of half width ``limit``."""
    theta, psi = trajectory.theta[:, 0], trajectory.psi[..., 0]
    inside = np.all(np.abs(np.column_stack([psi, theta - game.target])) <= limit, axis=1)  # not a number is outside
    end = len(inside) if inside.all() else max(1, int(np.argmin(inside)))
    averaged = None if trajectory.averaged is None else trajectory.averaged[:end, 0]
    return Trajectory(theta[:end], psi[:end], averaged)


def draw_field(axes: Axes, game: Game, side: float) -> None:
    """Draw the vector field in (ψ₀, θ), at ψ₁ = 0, as arrows on a grid."""
    line = side * np.linspace(-0.9, 0.9, 9)
    psi0, theta = np.meshgrid(line, line + game.target)
    flow = dirac_theory.field(game, psi0, np.zeros_like(psi0), theta)
    axes.quiver(
        psi0, theta, flow[0], flow[2], color="0.55", width=0.008, pivot="mid", scale_units="xy", angles="xy", zorder=0
    )
    axes.set(xlim=(-side, side), ylim=(game.target - side, game.target + side), aspect="equal")
    axes.grid(False)


def draw_game(axes: Axes, game: Game, trajectory: Trajectory, side: float) -> None:
    """Draw one game over its field from its start (circle) to its end (dot), with its average and the real point."""
    draw_field(axes, game, side)
    psi0, theta = trajectory.psi[:, 0], trajectory.theta
    axes.plot(psi0, theta, color=figures.COLOURS[0], linewidth=0.6)
    if trajectory.averaged is not None:
        axes.plot(psi0 * 0, trajectory.averaged, color=figures.COLOURS[1], linewidth=1.5)
        axes.plot(0, trajectory.averaged[-1], "s", color=figures.COLOURS[1], markersize=3)
    axes.plot(psi0[0], theta[0], "o", color=figures.COLOURS[0], markersize=4, markerfacecolor="white")
    axes.plot(psi0[-1], theta[-1], "o", color=figures.COLOURS[0], markersize=3)
    axes.plot(0, game.target, "+", color="black", markersize=7)


def reach(game: Game, trajectory: Trajectory) -> float:
    """Half the side of a square about the target that contains a game."""
    psi0, theta = trajectory.psi[:, 0], trajectory.theta - game.target
    return 1.1 * max(np.abs(psi0).max(), np.abs(theta).max(), 0.5)


def describe(game: Game, digits: str = "g") -> str:
    """Loss and penalty of a game, for a title."""
    penalty = f"{game.reg_type} {game.reg_cf:{digits}}" if game.reg_type else "no penalty"
    return f"{game.loss_type}, {penalty}"


def final_plot(path: str | Path, name: str, game: Game, trajectory: Trajectory) -> None:
    """One game: over the vector field, over its first updates and over all, and in space with the set of equilibria."""
    trajectory = first_of(game, trajectory)
    width, height = figures.WIDTH, 1.83
    with mpl.rc_context(figures.STYLE):
        drawing = Figure(figsize=(width, height))
        # Placed by hand, so that the panels are equally high and do not move between pictures.
        plane, first, every = (
            drawing.add_axes((left / width, 0.41 / height, across / width, 1.2 / height))
            for left, across in ((0.57, 1.2), (2.36, 0.97), (3.4, 1.02))
        )
        space = drawing.add_axes((4.42 / width, 0.0, 1.75 / width, 1.75 / height), projection="3d")
        space.patch.set_visible(False)
        title = f"{name}: {describe(game)}{', average' if game.alpha_ema is not None else ''}"
        drawing.text(0.57 / width, 1.73 / height, title, va="center")
        draw_game(plane, game, trajectory, reach(game, trajectory))
        plane.set(xlabel=SLOPE, ylabel=POINT)
        every.sharey(first)
        every.tick_params(labelleft=False)
        over_first_updates(first, game, trajectory)
        over_all_updates(every, game, trajectory)
        in_space(space, game, trajectory)
        above: dict[str, Any] = {"loc": "center right", "bbox_to_anchor": (0.74, 1.73 / height), "borderaxespad": 0}
        above |= {"ncols": 4, "columnspacing": 0.9, "handlelength": 1.3, "handletextpad": 0.4}
        drawing.legend(*first.get_legend_handles_labels(), **above)
        figures.save(drawing, path)


def over_first_updates(axes: Axes, game: Game, trajectory: Trajectory) -> None:
    """Draw θ, its average and the critic's parameters over the first updates, where single turns are visible."""
    lines = [
        ("$\\theta$", trajectory.theta, figures.COLOURS[0], "-"),
        ("$\\psi_0$", trajectory.psi[:, 0], figures.COLOURS[2], "--"),
        ("$\\psi_1$", trajectory.psi[:, 1], figures.COLOURS[3], ":"),
    ]
    if trajectory.averaged is not None:
        lines.append(("average of $\\theta$", trajectory.averaged, figures.COLOURS[1], "-"))
    for label, values, colour, dashes in lines:
        width = 1.8 if label.startswith("average") or dashes == ":" else 1.0
        axes.plot(values[: FIRST_UPDATES + 1], dashes, label=label, color=colour, linewidth=width)
    axes.axhline(game.target, color="black", linewidth=0.6, linestyle=":")
    axes.set(xlabel=f"first {FIRST_UPDATES} updates", xlim=(0, FIRST_UPDATES))
    axes.set_ylabel("parameters", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(3, prune="upper"))


def over_all_updates(axes: Axes, game: Game, trajectory: Trajectory) -> None:
    """Draw the average, and θ; if it has too many turns to see, the band between its turning points."""
    theta = trajectory.theta
    upper, lower = envelope(theta, 1), envelope(theta, -1)
    if len(upper.T) < FEW_TURNS:
        axes.plot(theta, color=figures.COLOURS[0], linewidth=0.8)
    else:
        around = np.concatenate([upper, lower[:, ::-1]], axis=1)
        axes.fill(*around, facecolor=to_rgba(figures.COLOURS[0], 0.3), edgecolor=figures.COLOURS[0], linewidth=0.8)
    if trajectory.averaged is not None:
        axes.plot(trajectory.averaged, color=figures.COLOURS[1], linewidth=1.4)
    axes.axhline(game.target, color="black", linewidth=0.6, linestyle=":")
    axes.set(xlabel="all updates", xlim=(0, max(1, len(theta) - 1)))
    axes.xaxis.set_major_locator(MaxNLocator(3, prune="upper"))


def envelope(values: np.ndarray, sign: int) -> np.ndarray:
    """The curve through the upper (sign 1) or lower (-1) turning points, from first to last value: ``(2, points)``."""
    turns, _ = find_peaks(sign * values)
    points = np.array([0, *turns, len(values) - 1])
    return np.stack([points, values[points]])


def in_space(axes: Any, game: Game, trajectory: Trajectory) -> None:
    """Draw the trajectory in (ψ₀, ψ₁, θ) and the equilibria: a point for JSD, a line for W1, none with GP."""
    psi, theta = trajectory.psi, trajectory.theta
    axes.plot(psi[:, 0], psi[:, 1], theta, color=figures.COLOURS[0], linewidth=0.5)
    axes.plot(psi[:1, 0], psi[:1, 1], theta[:1], "o", color=figures.COLOURS[0], markersize=4, fillstyle="none")
    axes.plot(psi[-1:, 0], psi[-1:, 1], theta[-1:], "o", color=figures.COLOURS[0], markersize=4)
    if game.reg_type != "GP":
        if game.loss_type == "W1":
            low, high = min(psi[:, 1].min(), -0.5), max(psi[:, 1].max(), 0.5)
            axes.plot([0, 0], [low, high], [game.target] * 2, color="black", linewidth=1.2)
        else:
            axes.plot([0], [0], [game.target], "+", color="black", markersize=7)
    axes.set_xlabel("$\\psi_0$", labelpad=-9)
    axes.set_ylabel("$\\psi_1$", labelpad=-6)
    axes.set_zlabel("$\\theta$", labelpad=-4)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        low, high = axis.get_view_interval()
        # Two ticks well within each edge: ticks of two edges would collide at a corner.
        ticks = MaxNLocator(8, steps=[1, 2, 5]).tick_values(low, high)
        inside = ticks[(ticks > low + 0.2 * (high - low)) & (ticks < high - 0.2 * (high - low))]
        axis.set_ticks([inside[0], inside[-1]])
    axes.tick_params(pad=-4)
    axes.tick_params(axis="z", pad=1)
    axes.set_box_aspect(None, zoom=0.9)


def overview(path: str | Path, games: Sequence[tuple[str, Game, Trajectory]], columns: int = 5) -> None:
    """The first game of each configuration over its vector field, all on one scale.

    An average does not change the game, so configurations that differ in nothing else share a panel.
    """
    alike: dict[Game, list[tuple[str, Game, Trajectory]]] = {}
    for name, game, trajectory in games:
        same = alike.setdefault(dataclasses.replace(game, alpha_ema=None), [])
        same.append((name, game, first_of(game, trajectory)))
    panels = list(alike.values())
    rows = -(-len(panels) // columns)
    side = max(reach(game, trajectory) for _, game, trajectory in itertools.chain(*panels))
    size = (figures.WIDTH / columns, 1.65)
    with figures.figure(path, columns, size, rows, sharex=True, sharey=True) as places:
        layout: Any = places[0].figure.get_layout_engine()
        layout.set(h_pad=0.08)  # a row's titles are clear of the ticks above
        for place in places[len(panels) :]:
            place.set_visible(False)
        for place, panel in zip(places, panels, strict=False):
            _, game, trajectory = panel[-1]  # with the average, where there is one
            draw_game(place, game, trajectory, side)
            numbers = ", ".join(name.split("-")[-1] for name, _, _ in panel[1:])
            place.set_title(f"{panel[0][0]}{numbers and f', {numbers}'}\n{describe(game)}", linespacing=1.5)
        places[0].figure.supxlabel(SLOPE)
        places[0].figure.supylabel(POINT)


def final_plots(path: str | Path, games: Sequence[tuple[str, Game, Trajectory]], columns: int = 5) -> None:
    """The first game of each configuration, a column each: in the plane, over the first updates and over all.

    All panels of a kind have the same axes.
    """
    games = [(name, game, first_of(game, trajectory)) for name, game, trajectory in games]
    rows = -(-len(games) // columns)
    side = max(reach(game, trajectory) for _, game, trajectory in games)
    highest = 1.05 * max(max(np.abs(t.theta).max(), np.abs(t.psi).max()) for _, _, t in games)
    heights = {"height_ratios": [1.5, 1.2, 1.2] * rows}
    with figures.figure(path, columns, (figures.WIDTH / columns, 1.42), 3 * rows, gridspec_kw=heights) as places:
        for i, (name, game, trajectory) in enumerate(games):
            row, column = divmod(i, columns)
            plane, first, every = (places[(3 * row + kind) * columns + column] for kind in range(3))
            draw_game(plane, game, trajectory, side)
            over_first_updates(first, game, trajectory)
            over_all_updates(every, game, trajectory)
            plane.set_title(f"{name}\n{describe(game)}", linespacing=1.5)
            plane.set(xlabel="$\\psi_0$", ylabel="$\\theta$")
            for axes in (first, every):
                axes.set_ylim(-highest, highest)
            every.set_ylabel("$\\theta$", labelpad=1)
            for axes in (plane, first, every):
                if column:
                    axes.set_ylabel("")
                    axes.tick_params(labelleft=False)
        handles = places[(3 * rows - 2) * columns].get_legend_handles_labels()
        places[0].figure.legend(*handles, loc="outside upper center", ncols=4)


def contraction(path: str | Path, long: dict[str, Any]) -> None:
    """The distance from the equilibrium over very many updates without a penalty, as played and by theory."""
    with figures.figure(path, size=(0.75 * figures.WIDTH, 2.4)) as (axes,):
        updates, losses = np.array(long["updates"], dtype=float), long["losses"]
        for (loss, result), colour, mark in zip(losses.items(), figures.COLOURS, "os", strict=False):
            axes.loglog(updates, result["measured"], mark, markersize=3, color=colour, label=f"{loss}, played")
            axes.loglog(updates, result["flow"], color=colour, linewidth=0.9, label=f"{loss}, theory")
        outside, colour = long["outside"], figures.COLOURS[0]
        axes.loglog(updates, outside["measured"], "x", markersize=3, color=colour, label="JSD from farther out")
        axes.loglog(updates, outside["flow"], color=colour, linewidth=0.9)
        closed_form = (updates * long["growth"]) ** -0.5
        axes.loglog(updates, closed_form, ":", color="0.4", linewidth=1, label="$r = (n h^2/640)^{-1/2}$")
        lowest = min(min(result["measured"]) for result in losses.values())
        figures.logarithmic(axes, (lowest, max(outside["measured"])))
        axes.set(xlabel="update $n$", ylabel="distance $r$", ylim=(lowest / 1.5, 1.5 * max(outside["measured"])))
        axes.legend(ncols=2, loc="lower left")


def sketch(axes: Axes, game: Game, start: Sequence[float] = (0.5, 0.0, 1.0), updates: int = 400) -> None:
    """Play one game from (ψ₀, ψ₁, θ) by its equations and draw it, fast enough to follow a slider.

    The title gives the field's eigenvalue at the equilibrium; with the one-centred penalty there is no equilibrium.
    """
    trajectory = first_of(game, dirac_theory.play(game, start, updates))
    draw_game(axes, game, trajectory, reach(game, trajectory))
    axes.set(xlabel=SLOPE, ylabel=POINT)
    outlook = "no equilibrium"
    if game.reg_type != "GP":
        value = dirac_theory.rotation(game, dirac_theory.jacobian(game), np.real)
        outlook = f"$\\lambda = {value.real + 0.0:.2g}" + (f" \\pm {value.imag:.2g}\\,i$" if value.imag else "$")
    axes.set_title(f"{describe(game, '.2g')}: {outlook}", fontsize=8)


def two_sides(plane: Axes, section: Axes, weight: float = 0.25) -> None:
    """The jump of W1's field with the one-centred penalty at ψ₀ = 0: in the plane, and along the line θ = t.

    Where |θ - t| < 2c the field leads away from ψ₀ = 0 on both sides. Along θ = t the slope's rate of change is 2c on
    the right and -2c on the left (c is ``weight``); with R1 it is continuous, and zero at ψ₀ = 0.
    """
    games = {reg: Game("W1", reg, weight) for reg in (None, "R1", "GP")}
    psi0, theta = np.meshgrid(np.linspace(-0.55, 0.55, 12), np.linspace(-1, 1, 11))
    flow = dirac_theory.field(games["GP"], psi0, np.zeros_like(psi0), theta)
    colours = np.where(psi0 > 0, figures.COLOURS[0], figures.COLOURS[1]).ravel()
    plane.quiver(psi0, theta, flow[0], flow[2], color=colours, width=0.005)
    plane.axvline(0, color="0.6", linewidth=0.6)
    plane.plot([0, 0], [-2 * weight, 2 * weight], color="black", linewidth=2, label="leads away on both sides")
    plane.plot(0, 0, "+", color="black", markersize=9)
    plane.set(xlabel=SLOPE, ylabel=POINT, title=f"W1, GP {weight:g}")
    plane.legend(fontsize=7.5, loc="lower center", frameon=True)
    plane.grid(False)
    for (reg, game), colour in zip(games.items(), ("0.5", *figures.COLOURS[2:4]), strict=True):
        for sign, label in ((-1, reg or "no penalty"), (1, None)):
            slope = sign * np.array([1e-9, 1.5])
            rate = dirac_theory.field(game, slope, slope * 0, slope * 0)[0]
            section.plot(slope, rate, color=colour, label=label)
            if reg == "GP":
                section.plot(0, rate[0], "o", color=colour, markersize=5, fillstyle="none")
    section.set(xlabel=SLOPE, ylabel="$\\dot\\psi_0$ at $\\theta = 0$", title="along the middle")
    section.legend(fontsize=7.5)


def animate(folder: Path, title: str, game: Game, trajectory: Trajectory, frames: int = 150) -> Path:
    """Save one game as the film ``trajectory.gif`` in the folder, and return its path."""
    trajectory = first_of(game, trajectory)
    psi0, theta = trajectory.psi[:, 0], trajectory.theta
    ends = np.unique(np.linspace(1, min(FILM_UPDATES, len(theta)), frames).astype(int))
    path = folder / "trajectory.gif"
    with mpl.rc_context(figures.STYLE):
        drawing = Figure(figsize=(3.2, 3.2), layout="constrained")
        axes = drawing.subplots()
        draw_field(axes, game, reach(game, trajectory))
        axes.plot(0, game.target, "+", color="black", markersize=7)
        axes.set(xlabel=SLOPE, ylabel=POINT, title=title)
        (line,) = axes.plot([], [], color=figures.COLOURS[0], linewidth=0.8)
        (dot,) = axes.plot([], [], "o", color=figures.COLOURS[0], markersize=5)
        (average,) = axes.plot([], [], "o", color=figures.COLOURS[1], markersize=5)
        drawing.draw_without_rendering()
        drawing.set_layout_engine("none")  # computed once, the layout is that of every frame
        film = animation.PillowWriter(fps=25)
        with atomic_write(path) as temporary, film.saving(drawing, str(temporary), dpi=110):
            for end in ends:
                line.set_data(psi0[:end], theta[:end])
                dot.set_data(psi0[end - 1 : end], theta[end - 1 : end])
                if trajectory.averaged is not None:
                    average.set_data([0], trajectory.averaged[end - 1 : end])
                axes.set_title(f"{title}, update {end - 1}")
                film.grab_frame()
    return path
