"""``paddle.utils.plot``: curves of a training run, as notebooks of the Fluid years drew them."""

from __future__ import annotations

from typing import Any

from millstream.config import environment
from millstream.errors import NotSupportedError

__all__ = ["PlotData", "Ploter"]


class PlotData:
    """The points of one curve."""

    def __init__(self) -> None:
        self.step: list[Any] = []
        self.value: list[Any] = []

    def append(self, step: Any, value: Any) -> None:
        self.step.append(step)
        self.value.append(value)

    def reset(self) -> None:
        self.step, self.value = [], []


class Ploter:
    """Curves by title: ``Ploter("train cost", "test cost")``.

    With the environment variable ``DISABLE_PLOT=True`` points are kept and nothing is drawn; otherwise matplotlib is needed.
    """

    def __init__(self, *args: str) -> None:
        self.__args__ = args
        self.__plot_data__ = {title: PlotData() for title in args}

    def append(self, title: str, step: Any, value: Any) -> None:
        """One more point of curve `title`; KeyError when there is no such curve."""
        if title not in self.__plot_data__:
            raise KeyError(f"Ploter has no curve {title!r}; it has {', '.join(map(repr, self.__args__))}")
        self.__plot_data__[title].append(step, value)

    def plot(self, path: str | None = None) -> None:
        """Draw all curves: into the file `path`, or on the screen when None. NotSupportedError without matplotlib."""
        if environment().get("DISABLE_PLOT") == "True":
            return
        pyplot = _pyplot(on_screen=path is None)
        drawn = [title for title in self.__args__ if self.__plot_data__[title].step]
        for title in drawn:
            pyplot.plot(self.__plot_data__[title].step, self.__plot_data__[title].value)
        pyplot.legend(drawn, loc="upper left")
        if path is None:
            pyplot.show()
        else:
            pyplot.savefig(path)
        pyplot.gcf().clear()

    def reset(self) -> None:
        """Forget all points."""
        for curve in self.__plot_data__.values():
            curve.reset()


def _pyplot(on_screen: bool) -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise NotSupportedError(
            "Ploter.plot draws with matplotlib, which is not installed: "
            "pip install millstream[bench], or set DISABLE_PLOT=True"
        ) from error
    if not on_screen:
        matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
