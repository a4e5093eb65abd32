"""Tiny YOLOv3."""

from mindspore import Tensor, get_context, nn, ops


@ops.constexpr
def on_cpu():  # known when a graph is built
    return get_context('device_target') == 'CPU'


def exact(op, x):  # MindSpore's own kernels on a CPU are exact in float64 only
    return op(x.double()).astype(x.dtype) if on_cpu() else op(x)


def box_targets(boxes, images):  # yolov3.py:19
    boxes = boxes.float()
    size = boxes[..., 2:4] - boxes[..., 0:2]
    extent = Tensor((images.shape[3], images.shape[2]), boxes.dtype)
    place = ops.concat([ops.floor((boxes[..., 0:2] + boxes[..., 2:4]) / 2.0) / extent, size / extent], axis=2)
    table = Tensor(
        (((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)),),
        boxes.dtype
    )
    smaller = ops.minimum(size[:, :, None, :], table[:, None, :, :])
    inter = smaller[..., 0] * smaller[..., 1]
    area = size[..., 0:1] * size[..., 1:2] + (table[..., 0] * table[..., 1])[:, None, :]
    best = ops.argmax(inter / (area - inter), dim=2).int()
    nearest = ops.gather(ops.broadcast_to(table, (boxes.shape[0], 9, 2)), best, axis=1, batch_dims=1)
    log = exact(ops.log, (ops.where(size > 0.0, size, extent) / nearest).float())
    return place, log, best


def rows(head):  # yolov3.py:15
    return ops.transpose(head.reshape((head.shape[0], 3, 8, head.shape[2], head.shape[3])), (0, 3, 4, 1, 2))


def cells(centre, grid):  # yolov3.py:47
    product = centre * grid
    cell = ops.floor(product)
    high = centre * 4097.0 - (centre * 4097.0 - centre)
    below = ops.logical_and(product == cell, high * grid - product + (centre - high) * grid < 0.0)
    return cell - below.float()


def assign(head, place, best, labels, valid, first):  # yolov3.py:62
    grid = Tensor((head.shape[3], head.shape[2]), place.dtype)
    centre = place[..., 0:2]
    cell = cells(centre, grid)
    mine = ops.logical_and(valid, ops.logical_and(best < first + 3, best > first - 1))
    row = (cell[..., 1] * head.shape[3] + cell[..., 0]) * 3.0 + (best.float() - first)
    row = row * mine.float()
    both = ops.logical_and(mine[:, :, None], mine[:, None, :])
    same = ops.logical_and(both, row[:, :, None] == row[:, None, :])
    turn = ops.arange(row.shape[1], dtype=row.dtype)
    winner = ops.amax(ops.logical_and(same, turn > turn[:, None]).float(), axis=2)
    winner = ops.logical_and(mine, winner < 0.5)
    own = labels[:, :, None] == ops.arange(3, dtype=labels.dtype)
    targets = ops.minimum(ops.matmul(same.float(), own.float()), 1.0)
    offset = (centre * grid - cell).float()
    return row.int(), winner, offset, targets


def decode(raw, images, anchors):  # yolov3.py:22
    x = exact(ops.sigmoid, raw[..., 0:1]) + ops.arange(
        raw.shape[2], dtype=raw.dtype
    ).reshape((raw.shape[2], 1, 1))
    y = exact(ops.sigmoid, raw[..., 1:2]) + ops.arange(
        raw.shape[1], dtype=raw.dtype
    ).reshape((raw.shape[1], 1, 1, 1))
    size = exact(ops.exp, raw[..., 2:4]) * Tensor(anchors, raw.dtype)
    concat = ops.concat(
        [x / raw.shape[2], y / raw.shape[1], size / Tensor((images.shape[3], images.shape[2]), raw.dtype)],
        axis=4
    )
    return concat.reshape((raw.shape[0], -1, 4))


def pairwise_iou(a, b):  # boxes.py:11
    low = ops.maximum(
        (a[..., 0:2] - a[..., 2:4] / 2.0)[:, :, None, :], (b[..., 0:2] - b[..., 2:4] / 2.0)[:, None, :, :]
    )
    high = ops.minimum(
        (a[..., 0:2] + a[..., 2:4] / 2.0)[:, :, None, :], (b[..., 0:2] + b[..., 2:4] / 2.0)[:, None, :, :]
    )
    side = ops.maximum(high - low, 0.0)
    inter = side[..., 0] * side[..., 1]
    add = (a[..., 2] * a[..., 3])[:, :, None] + (b[..., 2] * b[..., 3])[:, None, :]
    return inter / (add - inter)


def level_loss(head, images, place, log_size, best, labels, valid, first, anchors):  # yolov3.py:43
    raw = rows(head)
    flat = raw.reshape((raw.shape[0], -1, 8))
    row, winner, offset, targets = assign(head, place, best, labels, valid, first=first)
    picked = ops.gather(flat, row, axis=1, batch_dims=1)
    truth = place.float()
    hit = winner.float()[:, :, None]
    weight = hit * (2.0 - truth[..., 2:3] * truth[..., 3:4])
    error = log_size - picked[..., 2:4]
    xy = ops.binary_cross_entropy_with_logits(picked[..., 0:2], offset, reduction='none')
    category = ops.binary_cross_entropy_with_logits(picked[..., 5:], targets, reduction='none')
    overlap = pairwise_iou(decode(ops.stop_gradient(raw), images, anchors=anchors), truth)
    free = (ops.amax(overlap * ops.transpose(hit, (0, 2, 1)), axis=2) < 0.7).float()
    place_of = ops.arange(flat.shape[1], dtype=row.dtype)[:, None] == row[:, None, :]
    found = ops.logical_and(place_of, winner[:, None, :]).float()
    found = ops.amax(found, axis=2)
    objectness = ops.binary_cross_entropy_with_logits(flat[..., 4], found, reduction='none')
    stack = ops.stack(
        [
            (xy * weight).sum(), (error * error * 0.5 * weight).sum(),
            (objectness * (found + (1.0 - found) * free)).sum(), (category * hit).sum()
        ],
        axis=0
    )
    return stack / head.shape[0]


def level_predictions(head, images, anchors):  # yolov3.py:35
    raw = rows(head)
    return ops.concat(
        [
            decode(raw, images, anchors=anchors),
            exact(ops.sigmoid, raw[..., 4:]).reshape((raw.shape[0], -1, 4))
        ],
        axis=2
    )


class ConvNormRelu(nn.Cell):  # layers.py:28, 16 instances
    def __init__(self, cin, cout, kernel, stride, pads):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride=stride, pad_mode='pad', padding=pads, has_bias=False)
        self.norm = nn.BatchNorm2d(cout, eps=1e-05, momentum=0.1)

    def construct(self, x):
        return ops.relu(self.norm(self.conv(x)))


class ConvNormLeakyRelu(nn.Cell):  # layers.py:28, 20 instances
    def __init__(self, cin, cout, kernel):
        super().__init__()
        self.conv = nn.Conv2d(
            cin, cout, kernel, stride=1, pad_mode='pad', padding=kernel // 2, has_bias=False
        )
        self.norm = nn.BatchNorm2d(cout, eps=1e-05, momentum=0.9)

    def construct(self, x):
        return ops.leaky_relu(self.norm(self.conv(x)), 0.1)


class Residual(nn.Cell):  # darknet.py:12, 5 instances
    def __init__(self, channels):
        super().__init__()
        self.conv1 = ConvNormRelu(cin=channels, cout=channels // 2, kernel=1, stride=1, pads=0)
        self.conv2 = ConvNormRelu(cin=channels // 2, cout=channels, kernel=3, stride=1, pads=1)

    def construct(self, x):
        return self.conv2(self.conv1(x)) + x


class DarkNet(nn.Cell):  # darknet.py:24, 1 instance
    def __init__(self):
        super().__init__()
        self.conv0 = ConvNormRelu(cin=3, cout=4, kernel=3, stride=1, pads=1)
        self.conv1 = ConvNormRelu(cin=4, cout=8, kernel=3, stride=2, pads=(0, 1, 0, 1))
        self.layer1 = nn.SequentialCell(Residual(channels=8))
        self.conv2 = ConvNormRelu(cin=8, cout=16, kernel=3, stride=2, pads=(0, 1, 0, 1))
        self.layer2 = nn.SequentialCell(Residual(channels=16))
        self.conv3 = ConvNormRelu(cin=16, cout=32, kernel=3, stride=2, pads=(0, 1, 0, 1))
        self.layer3 = nn.SequentialCell(Residual(channels=32))
        self.conv4 = ConvNormRelu(cin=32, cout=64, kernel=3, stride=2, pads=(0, 1, 0, 1))
        self.layer4 = nn.SequentialCell(Residual(channels=64))
        self.conv5 = ConvNormRelu(cin=64, cout=128, kernel=3, stride=2, pads=(0, 1, 0, 1))
        self.layer5 = nn.SequentialCell(Residual(channels=128))

    def construct(self, images):
        x = self.layer2(self.conv2(self.layer1(self.conv1(self.conv0(images)))))
        stride8 = self.layer3(self.conv3(x))
        stride16 = self.layer4(self.conv4(stride8))
        stride32 = self.layer5(self.conv5(stride16))
        return stride8, stride16, stride32


class YoloBlock(nn.Cell):  # yolov3.py:115, 3 instances
    def __init__(self, cin, channels):
        super().__init__()
        self.conv0 = ConvNormLeakyRelu(cin=cin, cout=channels, kernel=1)
        self.conv1 = ConvNormLeakyRelu(cin=channels, cout=channels * 2, kernel=3)
        self.conv2 = ConvNormLeakyRelu(cin=channels * 2, cout=channels, kernel=1)
        self.conv3 = ConvNormLeakyRelu(cin=channels, cout=channels * 2, kernel=3)
        self.conv4 = ConvNormLeakyRelu(cin=channels * 2, cout=channels, kernel=1)
        self.conv5 = ConvNormLeakyRelu(cin=channels, cout=channels * 2, kernel=3)
        self.conv6 = nn.Conv2d(channels * 2, 24, 1, stride=1, pad_mode='pad', padding=0, has_bias=True)

    def construct(self, x):
        route = self.conv4(self.conv3(self.conv2(self.conv1(self.conv0(x)))))
        output = self.conv6(self.conv5(route))
        return route, output


class YOLOv3(nn.Cell):  # yolov3.py:134, 1 instance
    def __init__(self):
        super().__init__()
        self.backbone = DarkNet()
        self.backblock0 = YoloBlock(cin=128, channels=64)
        self.conv1 = ConvNormLeakyRelu(cin=64, cout=32, kernel=1)
        self.backblock1 = YoloBlock(cin=96, channels=32)
        self.conv2 = ConvNormLeakyRelu(cin=32, cout=16, kernel=1)
        self.backblock2 = YoloBlock(cin=48, channels=16)

    def heads(self, images):
        stride8, stride16, stride32 = self.backbone(images)
        route, big = self.backblock0(stride32)
        concat = ops.concat(
            [ops.interpolate(self.conv1(route), scale_factor=2.0, recompute_scale_factor=True), stride16],
            axis=1
        )
        route, medium = self.backblock1(concat)
        concat = ops.concat(
            [ops.interpolate(self.conv2(route), scale_factor=2.0, recompute_scale_factor=True), stride8],
            axis=1
        )
        _, small = self.backblock2(concat)
        return big, medium, small

    def loss(self, images, boxes, labels, valid):
        place, log_size, best = box_targets(boxes, images)
        call, call_2, call_3 = self.heads(images)
        level = level_loss(
            call, images, place, log_size, best, labels, valid, first=6,
            anchors=((116, 90), (156, 198), (373, 326))
        )
        level_2 = level_loss(
            call_2, images, place, log_size, best, labels, valid, first=3,
            anchors=((30, 61), (62, 45), (59, 119))
        )
        level_3 = level_loss(
            call_3, images, place, log_size, best, labels, valid, first=0,
            anchors=((10, 13), (16, 30), (33, 23))
        )
        terms = level + level_2 + level_3
        return {
            "loss": terms.sum(), "xy": terms[0], "wh": terms[1], "obj": terms[2], "cls": terms[3],
            "big": level.sum(), "medium": level_2.sum(), "small": level_3.sum()
        }

    def predict(self, images):
        big, medium, small = self.heads(images)
        return ops.concat(
            [
                level_predictions(small, images, anchors=((10, 13), (16, 30), (33, 23))),
                level_predictions(medium, images, anchors=((30, 61), (62, 45), (59, 119))),
                level_predictions(big, images, anchors=((116, 90), (156, 198), (373, 326)))
            ],
            axis=1
        )

    def construct(self, images, boxes=None, labels=None, valid=None):
        if boxes is None:
            return self.predict(images)
        return self.loss(images, boxes, labels, valid)
