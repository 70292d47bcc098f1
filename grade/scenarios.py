"""What is done with a submission's functions: each scenario takes the module and a case, and returns what came out.

Both sides use this file: the child process runs the scenarios, the parent computes with the same small networks.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Json = dict[str, Any]
LARGEST = 200_000  # numbers in a tensor that is sent


def encode(value: Any) -> Any:
    """A value as JSON: tensors and arrays with their numbers, everything else by its type."""
    if isinstance(value, Tensor):
        value = value.detach()
        shape = list(value.shape)
        numbers = value.double().flatten().tolist() if value.numel() <= LARGEST and not value.is_complex() else None
        return {"tensor": numbers, "shape": shape, "dtype": str(value.dtype).removeprefix("torch.")}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(torch.as_tensor(value)) | {"array": True}
    if isinstance(value, (bool, int, float)):
        return {"tensor": [float(value)], "shape": [], "dtype": "float", "array": True}
    if isinstance(value, (list, tuple)):
        return {"items": [encode(item) for item in value[:16]], "object": type(value).__name__}
    return {"object": None if value is None else type(value).__name__}


def decode(value: Any) -> Any:
    """The reverse of :func:`encode` for tensors, within dictionaries and lists."""
    if isinstance(value, dict) and "tensor" in value:
        if value["tensor"] is None:
            return None
        dtype = getattr(torch, value["dtype"], torch.float64)
        return torch.tensor(value["tensor"], dtype=torch.float64).to(dtype).reshape(value["shape"])
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    return [decode(item) for item in value] if isinstance(value, list) else value


class Critic(nn.Module):
    """A critic of samples ``(N, *)``, of values ``(N,)``: linear, with a hidden layer of tanh, or quadratic."""

    def __init__(self, spec: Json) -> None:
        super().__init__()
        self.v = nn.Parameter(spec["v"].clone())
        self.bias = nn.Parameter(spec["bias"].clone())
        self.w = nn.Parameter(spec["w"].clone()) if "w" in spec else None  # of the hidden layer
        self.m = nn.Parameter(spec["m"].clone()) if "m" in spec else None  # of the quadratic form

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
        if self.m is not None:
            return 0.5 * ((x @ self.m) * x).sum(1) + x @ self.v + self.bias
        return (x if self.w is None else torch.tanh(x @ self.w)) @ self.v + self.bias


class Generator(nn.Module):
    """Generates the batches ``noise * scale + shift``, one after the other."""

    def __init__(self, spec: Json) -> None:
        super().__init__()
        self.scale = nn.Parameter(spec["scale"].clone())
        self.shift = nn.Parameter(spec["shift"].clone())
        self.noise = spec["noise"]
        self.events: list[Json] = []

    def draw(self, index: int) -> Tensor:
        return self.noise[index] * self.scale + self.shift

    def forward(self, *_: Any) -> Tensor:
        index = sum(event["event"] == "fake" for event in self.events)
        self.events.append({"event": "fake", "index": index})
        return self.draw(index)


class Descent:
    """Gradient descent that writes down every step."""

    def __init__(self, name: str, players: dict[str, nn.Module], lr: float, events: list[Json]) -> None:
        self.param_groups: list[Json] = [{"params": list(players[name].parameters()), "lr": lr}]
        self.name, self.players, self.lr, self.events = name, players, lr, events
        self.defaults, self.state = {"lr": lr}, {}  # type: ignore[var-annotated]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if closure is not None:
            with torch.enable_grad():
                closure()
        parameters = self.param_groups[0]["params"]
        record = {name: parameters_of(player) for name, player in self.players.items()}
        grads = [encode(torch.zeros_like(p) if p.grad is None else p.grad) for p in parameters]
        self.events.append({"event": self.name, "grads": grads, **record})
        for parameter in parameters:
            if parameter.grad is not None:
                parameter -= self.lr * parameter.grad

    def state_dict(self) -> Json:
        return {}


def parameters_of(module: nn.Module) -> list[Json]:
    return [encode(parameter) for parameter in module.parameters()]


class Real:
    """An iterator over real batches that writes down which were taken."""

    def __init__(self, batches: Tensor, events: list[Json]) -> None:
        self.batches, self.events, self.index = batches, events, 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        if self.index == len(self.batches):
            raise StopIteration
        self.events.append({"event": "real", "index": self.index})
        self.index += 1
        return self.batches[self.index - 1].clone()


def find(module: ModuleType, name: str) -> Any:
    """A function of the submission.

    Raises:
        LookupError: There is none.
    """
    if not hasattr(module, name):
        raise LookupError(name)
    return getattr(module, name)


def gradients(value: Any, leaves: Iterable[Tensor]) -> list[Json | None]:
    """The gradients of a value's sum, None where there is none; nothing at all where an input was changed."""
    leaves = list(leaves)
    if not isinstance(value, Tensor) or not value.requires_grad:
        return [None] * len(leaves)
    try:
        found = torch.autograd.grad(value.sum(), leaves, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "inplace" in str(error):  # an input is changed after its use: that is a note
            return []
        return [None] * len(leaves)
    return [None if grad is None else encode(grad) for grad in found]


def through(function: Callable[..., Any], arguments: list[Any], numbers: list[int]) -> list[Json | None]:
    """The gradients of a function's result in some of its arguments."""
    leaves = [arguments[number].clone().requires_grad_() for number in numbers]
    copies = [value.clone() if isinstance(value, Tensor) else value for value in arguments]
    for number, leaf in zip(numbers, leaves, strict=True):
        copies[number] = leaf.clone()  # as a network's output: it may be changed in place
    try:
        return gradients(function(*copies), leaves)
    except Exception:  # it works without gradients only: by numpy, say
        return [None] * len(leaves)


def call(module: ModuleType, case: Json) -> Json:
    """Call a function with fresh copies of its arguments; with ``leaves``, again for the gradients in those."""
    function = functools.partial(find(module, case["function"]), **case.get("kwargs", {}))
    arguments = [value.clone() if isinstance(value, Tensor) else value for value in case["args"]]
    result = {"value": encode(function(*arguments))}
    kept = [(a, b) for a, b in zip(arguments, case["args"], strict=True) if isinstance(b, Tensor)]
    result["changed"] = any(a.shape != b.shape or not torch.equal(a.detach(), b) for a, b in kept)
    if case.get("leaves"):
        result["grads"] = through(function, case["args"], case["leaves"])
    return result


def penalty(module: ModuleType, case: Json) -> Json:
    """Call a gradient penalty several times; with ``backward``, the gradients in the critic's parameters too."""
    function, values, grads = find(module, case["function"]), [], []
    for _ in range(case["repeats"]):
        critic = Critic(case["critic"])
        p, q = (case[name].clone().requires_grad_(case["leaves"]) for name in "pq")
        value = function(p, critic(p), q, critic(q), critic)
        values.append(encode(value))
        if case["backward"]:
            critic.zero_grad()
            if isinstance(value, Tensor) and value.requires_grad:
                value.sum().backward()
            grads.append([encode(torch.zeros_like(x) if x.grad is None else x.grad) for x in critic.parameters()])
    return {"values": values, "grads": grads}


def losses(module: ModuleType, case: Json) -> Json:
    """Make the losses and call one of them: with the metric's gradient in q, or the loss's in the critic."""
    made = find(module, "make_losses")(*case["args"])
    if made is None:
        return {"value": encode(None)}
    if not isinstance(made, (list, tuple)) or len(made) != 2:
        return {"says": "make_losses must return two functions, metric and critic_loss"}
    chosen, critic = made[case["which"]], Critic(case["critic"])
    p, q = (case[name].clone().requires_grad_(case["leaves"]) for name in "pq")
    value = chosen(p, q, critic)
    if case["which"] == 1:
        return {"value": encode(value), "grads": gradients(value, critic.parameters())}
    return {"value": encode(value), "grads": through(lambda p, q: chosen(p, q, critic), [p.detach(), q.detach()], [1])}


def network() -> nn.Sequential:
    """A network with parameters and buffers."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def average(module: ModuleType, case: Json) -> Json:
    """Move one network towards another."""
    source, target = network(), network()
    for net, values in ((source, case["source"]), (target, case["target"])):
        nn.utils.vector_to_parameters(values, net.parameters())
        net[1].running_mean.add_(values[:4])  # type: ignore[operator,union-attr]
    find(module, "apply_exponential_moving_average")(source, target, *case["alpha"])

    def flat(net: nn.Module) -> Json:
        return encode(nn.utils.parameters_to_vector(net.parameters()))

    buffer = target[1].running_mean
    return {"value": flat(target), "source": flat(source), "buffer": encode(buffer)}


def train_step(module: ModuleType, case: Json) -> Json:
    """Make a training step and take it, with players, data and optimisers that write down what is done with them."""
    step = find(module, "make_train_step")(*case["args"])
    if step is None:
        return {"events": [], "value": encode(None)}
    critic, generator = Critic(case["critic"]), Generator(case["generator"])
    events = generator.events
    averaged = copy.deepcopy(generator)
    with torch.no_grad():
        averaged.shift.add_(1)
    players = {"critic": critic, "generator": generator, "averaged": averaged}
    optimizers = [Descent(name, players, case["lr"], events) for name in ("critic", "generator")]
    real, value = Real(case["real"], events), None
    for _ in range(case["steps"]):
        value = step(real, critic, optimizers[0], generator, averaged, optimizers[1])
        events.append({"event": "end", **{name: parameters_of(player) for name, player in players.items()}})
    return {"events": events, "value": encode(value)}


def planar(module: ModuleType, case: Json) -> Json:
    """The map or its log-determinant: a module's function, or a method of ``PlanarTransformation``."""
    x, u, w, b = (case[name] for name in "xuwb")
    if case["form"] == "function":
        function = find(module, case["function"])
        if isinstance(function, type):
            raise LookupError(case["function"])
        parts = [x, u, w, b]
        value = function(*(part.clone() for part in parts))
        return {"value": encode(value), "grads": through(function, parts, [0, 1, 2, 3])}
    layer = _layer(find(module, "PlanarTransformation"), u, w, b)
    name = next((name for name in case["methods"] if name in vars(type(layer))), None)
    if name is None:
        raise LookupError(case["methods"][0])
    method = getattr(layer, name)
    needed = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty and p.kind < 2]
    value = method(*[x.clone(), layer.u, layer.w, layer.b][: max(1, len(needed))])
    if isinstance(value, tuple):
        value = value[0]
    parameters = {name: getattr(layer, name) for name in "uwb"}
    return {
        "value": encode(value),
        "layer": {name: encode(parameter) for name, parameter in parameters.items()},
        "grads": gradients(value, parameters.values()),
    }


def _layer(kind: Callable[..., Any], u: Tensor, w: Tensor, b: Tensor) -> Any:
    layer = kind(u.shape[-1])
    _fill(layer, u, w, b)
    return layer


@torch.no_grad()
def _fill(layer: Any, u: Tensor, w: Tensor, b: Tensor) -> None:
    for name, value in (("u", u), ("w", w), ("b", b)):
        parameter = getattr(layer, name)
        parameter.data = value.clone().reshape(parameter.shape)


def flow(module: ModuleType, case: Json) -> Json:
    """A chain of planar layers with given parameters; one whose layers cannot be found is not judged."""
    kind, count = find(module, "Flow"), len(case["u"])
    try:
        made = kind(case["x"].shape[1], count)
        layers = next(list(part) for part in made.children() if len(list(part)) == count)  # type: ignore[call-overload]
        for layer, u, w, b in zip(layers, case["u"], case["w"], case["b"], strict=True):
            _fill(layer, u, w, b)
    except (TypeError, AttributeError, StopIteration, RuntimeError) as error:
        raise LookupError("Flow") from error
    outputs = made(case["x"].clone())
    parameters = [getattr(layer, name) for layer in layers for name in "uwb"]
    parts = outputs if isinstance(outputs, (list, tuple)) else []
    return {"value": encode(outputs), "grads": [grad for part in parts for grad in gradients(part, parameters)]}


def either(module: ModuleType, case: Json) -> Json:
    """The scenario that the case names."""
    scenario: Callable[[ModuleType, Json], Json] = globals()[case["scenario"]]
    return scenario(module, case)
