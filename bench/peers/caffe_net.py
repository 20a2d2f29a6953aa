"""A deploy prototxt as a PyTorch module, with seeded random weights: the peers' side of
bench/forward. Knows the layers of the nets that are measured."""
import re

import torch
import torch.nn.functional as F


def parse(text):
    """A message as {field: [values]}."""
    tokens = iter(re.findall(r'"[^"]*"|[{}:]|[^\s{}:"]+', re.sub(r"#.*", "", text)))

    def value(word):
        if word[0] == '"':
            return word[1:-1]
        try:
            return int(word)
        except ValueError:
            return float(word) if re.match(r"[-+.\d]", word) else word

    def message():
        fields, name = {}, None
        for token in tokens:
            if token == "}":
                break
            if token == ":":
                continue
            if token == "{":
                fields.setdefault(name, []).append(message())
                name = None
            elif name is None:
                name = token
            else:
                fields.setdefault(name, []).append(value(token))
                name = None
        return fields

    return message()


def first(message, name, default=None):
    return message.get(name, [default])[0]


def both(param, name, default):
    """kernel_size, or kernel_h and kernel_w."""
    short = {"kernel_size": "kernel", "stride": "stride", "pad": "pad"}[name]
    one = first(param, name, default)
    return first(param, short + "_h", one), first(param, short + "_w", one)


class Lrn(torch.autograd.Function):
    """PyTorch's own, which knows no bf16; in ONNX, the operator of that name."""

    @staticmethod
    def forward(context, x, size, alpha, beta):
        return F.local_response_norm(x.float(), size, alpha, beta, 1.0).to(x.dtype)

    @staticmethod
    def symbolic(graph, x, size, alpha, beta):
        return graph.op("LRN", x, size_i=size, alpha_f=alpha, beta_f=beta, bias_f=1.0)


def batch_norm(channels):
    """No two alike: what is equal becomes one in ONNX, by an Identity that OpenCV refuses."""
    made = torch.nn.BatchNorm2d(channels).eval()
    torch.nn.init.uniform_(made.running_mean, -0.1, 0.1)
    torch.nn.init.uniform_(made.running_var, 0.9, 1.1)
    torch.nn.init.uniform_(made.weight, 0.9, 1.1)
    torch.nn.init.uniform_(made.bias, -0.1, 0.1)
    return made


class CaffeNet(torch.nn.Module):
    def __init__(self, path):
        super().__init__()
        torch.manual_seed(1)
        with open(path) as file:
            net = parse(file.read())
        self.layers = net["layer"] if "layer" in net else net["layers"]
        dims = net.get("input_dim")
        if dims is None and "input_shape" in net:
            dims = net["input_shape"][0]["dim"]
        if dims is None:
            dims = self.layers[0]["input_param"][0]["shape"][0]["dim"]
        self.shape = tuple(dims[1:4])
        self.macs = 0
        self.products = []  # convolutions and inner products, as forward_onednn reads them
        self.parts = torch.nn.ModuleDict()
        with torch.no_grad():  # the first pass makes the weights and counts
            self.making = True
            self.forward(torch.zeros(1, *self.shape))
            self.making = False
        self.eval()

    def part(self, layer, make):
        name = first(layer, "name").replace(".", "_").replace("/", "_")
        if self.making:
            self.parts[name] = make()
        return self.parts[name]

    def add_product(self, layer, x, out, window, group):
        relu = any(first(l, "type") == "ReLU" and first(l, "bottom") == first(layer, "top")
                   for l in self.layers)
        self.products.append((x.shape[1], x.shape[2] if x.dim() > 2 else 1,
                              x.shape[3] if x.dim() > 2 else 1, out,
                              *(n for pair in window for n in pair), group, int(relu)))

    def convolution(self, layer, x):
        p = layer["convolution_param"][0]
        group, out = first(p, "group", 1), first(p, "num_output")
        kernel = both(p, "kernel_size", 1)
        y = self.part(layer, lambda: torch.nn.Conv2d(
            x.shape[1], out, kernel, both(p, "stride", 1), both(p, "pad", 0), groups=group,
            bias=first(p, "bias_term", "true") == "true"))(x)
        if self.making:
            self.macs += y.numel() * x.shape[1] // group * kernel[0] * kernel[1]
            self.add_product(layer, x, out, (kernel, both(p, "stride", 1), both(p, "pad", 0)),
                             group)
        return y

    def inner(self, layer, x):
        x = torch.flatten(x, 1)
        out = first(layer["inner_product_param"][0], "num_output")
        if self.making:
            self.macs += x.shape[1] * out
            self.add_product(layer, x, out, ((1, 1), (1, 1), (0, 0)), 1)
        return self.part(layer, lambda: torch.nn.Linear(x.shape[1], out))(x)

    def pool(self, layer, x):
        p = layer["pooling_param"][0]
        maximum = first(p, "pool", "MAX") == "MAX"
        if first(p, "global_pooling") == "true":
            return F.adaptive_avg_pool2d(x, 1)
        how = (both(p, "kernel_size", 1), both(p, "stride", 1), both(p, "pad", 0))
        return (F.max_pool2d(x, *how, ceil_mode=True) if maximum
                else F.avg_pool2d(x, *how, ceil_mode=True))

    def lrn(self, layer, x):
        p = first(layer, "lrn_param", {})
        return Lrn.apply(x, first(p, "local_size", 5), float(first(p, "alpha", 1)),
                         float(first(p, "beta", 0.75)))

    def run(self, layer, inputs):
        kind, x = first(layer, "type"), inputs[0]
        if kind == "Convolution":
            return self.convolution(layer, x)
        if kind == "InnerProduct":
            return self.inner(layer, x)
        if kind == "Pooling":
            return self.pool(layer, x)
        if kind == "LRN":
            return self.lrn(layer, x)
        if kind == "ReLU":
            return F.relu(x)
        if kind == "BatchNorm":
            return self.part(layer, lambda: batch_norm(x.shape[1]))(x)
        if kind == "Concat":
            return torch.cat(inputs, 1)
        if kind == "Eltwise":
            return inputs[0] + inputs[1]
        if kind == "Softmax":
            return F.softmax(x, 1)
        if kind in ("Dropout", "Scale"):  # nothing; BatchNorm2d scales
            return x
        raise ValueError("a layer of type %s" % kind)

    def forward(self, x):
        blobs = {}
        for layer in self.layers:
            if first(layer, "type") == "Input":
                continue
            inputs = [blobs.get(name, x) for name in layer["bottom"]]
            blobs[layer["top"][0]] = y = self.run(layer, inputs)
        return y


def export(path, net, onnx, batch):
    """As ONNX, for those who read that."""
    torch.onnx.export(net, torch.zeros(batch, *net.shape), onnx, opset_version=11,
                      input_names=["data"], do_constant_folding=True)
