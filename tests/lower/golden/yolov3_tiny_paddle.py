"""Tiny YOLOv3."""

import paddle
from paddle import nn
from paddle.nn import functional as F


class BatchNorm2D(nn.BatchNorm2D):  # stores a batch's unbiased variance; Paddle's own stores the biased one on CPU
    def forward(self, x):
        if not self.training or paddle.get_device() != "cpu":
            return super().forward(x)
        variance, others = self._variance.clone(), x.shape[0] * x.shape[2] * x.shape[3] - 1
        y = F.batch_norm(x, self._mean, variance, self.weight, self.bias, True, self._momentum, self._epsilon)
        paddle.assign(variance + (variance - self._variance * self._momentum) / others, self._variance)
        return y


def bce_with_logits(x, target):  # Paddle's own gives the target no gradient
    return F.softplus(-x) * target + F.softplus(x) * (1.0 - target)


def equal(a, b):  # Paddle's own holds for numbers that are less than 1e-8 apart
    return (a <= b) & (a >= b)


def box_targets(boxes, images):  # yolov3.py:19
    boxes = boxes.astype('float32')
    size = boxes[..., 2:4] - boxes[..., 0:2]
    extent = paddle.to_tensor((images.shape[3], images.shape[2]), dtype=boxes.dtype)
    place = paddle.floor((boxes[..., 0:2] + boxes[..., 2:4]) / 2.0) / extent
    place = paddle.concat([place, size / extent], axis=2)
    table = paddle.to_tensor(
        (((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)),),
        dtype=boxes.dtype
    )
    smaller = paddle.minimum(size[:, :, None, :], table[:, None, :, :])
    inter = smaller[..., 0] * smaller[..., 1]
    area = size[..., 0:1] * size[..., 1:2] + (table[..., 0] * table[..., 1])[:, None, :]
    best = paddle.argmax(inter / (area - inter), axis=2, dtype='int32')
    nearest = paddle.take_along_axis(table.expand((boxes.shape[0], 9, 2)), best.unsqueeze(-1), axis=1)
    cast = (paddle.where(size > 0.0, size, extent) / nearest).astype('float32')
    return place, paddle.log(cast), best


def rows(head):  # yolov3.py:15
    return head.reshape(head.shape[0], 3, 8, head.shape[2], head.shape[3]).transpose((0, 3, 4, 1, 2))


def cells(centre, grid):  # yolov3.py:47
    product = centre * grid
    cell = paddle.floor(product)
    high = centre * 4097.0 - (centre * 4097.0 - centre)
    below = equal(product, cell) & (high * grid - product + (centre - high) * grid < 0.0)
    return cell - below.astype('float32')


def assign(head, place, best, labels, valid, first):  # yolov3.py:62
    grid = paddle.to_tensor((head.shape[3], head.shape[2]), dtype=place.dtype)
    centre = place[..., 0:2]
    cell = cells(centre, grid)
    mine = valid & ((best < first + 3) & (best > first - 1))
    row = (cell[..., 1] * head.shape[3] + cell[..., 0]) * 3.0 + (best.astype('float32') - first)
    row = row * mine.astype('float32')
    same = mine[:, :, None] & mine[:, None, :] & equal(row[:, :, None], row[:, None, :])
    turn = paddle.arange(row.shape[1], dtype=row.dtype)
    winner = mine & ((same & (turn > turn[:, None])).astype('float32').max(axis=2) < 0.5)
    own = equal(labels[:, :, None], paddle.arange(3, dtype=labels.dtype))
    targets = paddle.clip(paddle.matmul(same.astype('float32'), own.astype('float32')), -float('inf'), 1.0)
    offset = (centre * grid - cell).astype('float32')
    return row.astype('int32'), winner, offset, targets


def decode(raw, images, anchors):  # yolov3.py:22
    x = F.sigmoid(raw[..., 0:1]) + paddle.arange(raw.shape[2], dtype=raw.dtype).reshape(raw.shape[2], 1, 1)
    y = F.sigmoid(raw[..., 1:2]) + paddle.arange(raw.shape[1], dtype=raw.dtype).reshape(raw.shape[1], 1, 1, 1)
    size = paddle.exp(raw[..., 2:4]) * paddle.to_tensor(anchors, dtype=raw.dtype)
    concat = paddle.concat(
        [
            x / raw.shape[2], y / raw.shape[1],
            size / paddle.to_tensor((images.shape[3], images.shape[2]), dtype=raw.dtype)
        ],
        axis=4
    )
    return concat.reshape(raw.shape[0], -1, 4)


def pairwise_iou(a, b):  # boxes.py:11
    low = paddle.maximum(
        (a[..., 0:2] - a[..., 2:4] / 2.0)[:, :, None, :], (b[..., 0:2] - b[..., 2:4] / 2.0)[:, None, :, :]
    )
    high = paddle.minimum(
        (a[..., 0:2] + a[..., 2:4] / 2.0)[:, :, None, :], (b[..., 0:2] + b[..., 2:4] / 2.0)[:, None, :, :]
    )
    side = paddle.clip(high - low, 0.0, float('inf'))
    inter = side[..., 0] * side[..., 1]
    add = (a[..., 2] * a[..., 3])[:, :, None] + (b[..., 2] * b[..., 3])[:, None, :]
    return inter / (add - inter)


def level_loss(head, images, place, log_size, best, labels, valid, first, anchors):  # yolov3.py:43
    raw = rows(head)
    flat = raw.reshape(raw.shape[0], -1, 8)
    row, winner, offset, targets = assign(head, place, best, labels, valid, first=first)
    picked = paddle.take_along_axis(flat, row.unsqueeze(-1), axis=1)
    truth = place.astype('float32')
    hit = winner.astype('float32')[:, :, None]
    weight = hit * (2.0 - truth[..., 2:3] * truth[..., 3:4])
    error = log_size - picked[..., 2:4]
    overlap = pairwise_iou(decode(raw.detach(), images, anchors=anchors), truth) * hit.transpose((0, 2, 1))
    place_of = equal(paddle.arange(flat.shape[1], dtype=row.dtype)[:, None], row[:, None, :])
    found = (place_of & winner[:, None, :]).astype('float32').max(axis=2)
    objectness = bce_with_logits(flat[..., 4], found) * (
        found + (1.0 - found) * (overlap.max(axis=2) < 0.7).astype('float32')
    )
    terms = (bce_with_logits(picked[..., 0:2], offset) * weight).sum()
    terms_2 = (bce_with_logits(picked[..., 5:], targets) * hit).sum()
    stack = paddle.stack([terms, (error * error * 0.5 * weight).sum(), objectness.sum(), terms_2])
    return stack / head.shape[0]


def level_predictions(head, images, anchors):  # yolov3.py:35
    raw = rows(head)
    return paddle.concat(
        [decode(raw, images, anchors=anchors), F.sigmoid(raw[..., 4:]).reshape(raw.shape[0], -1, 4)], axis=2
    )


class ConvNormRelu(nn.Layer):  # layers.py:28, 16 instances
    def __init__(self, cin, cout, kernel, stride, pads):
        super().__init__()
        self.conv = nn.Conv2D(cin, cout, kernel, stride=stride, padding=pads, bias_attr=False)
        self.norm = BatchNorm2D(cout, momentum=0.1, epsilon=1e-05)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class ConvNormLeakyRelu(nn.Layer):  # layers.py:28, 20 instances
    def __init__(self, cin, cout, kernel):
        super().__init__()
        self.conv = nn.Conv2D(cin, cout, kernel, stride=1, padding=kernel // 2, bias_attr=False)
        self.norm = BatchNorm2D(cout, momentum=0.9, epsilon=1e-05)

    def forward(self, x):
        return F.leaky_relu(self.norm(self.conv(x)), 0.1)


class Residual(nn.Layer):  # darknet.py:12, 5 instances
    def __init__(self, channels):
        super().__init__()
        self.conv1 = ConvNormRelu(cin=channels, cout=channels // 2, kernel=1, stride=1, pads=0)
        self.conv2 = ConvNormRelu(cin=channels // 2, cout=channels, kernel=3, stride=1, pads=1)

    def forward(self, x):
        return self.conv2(self.conv1(x)) + x


class DarkNet(nn.Layer):  # darknet.py:24, 1 instance
    def __init__(self):
        super().__init__()
        self.conv0 = ConvNormRelu(cin=3, cout=4, kernel=3, stride=1, pads=1)
        self.conv1 = ConvNormRelu(cin=4, cout=8, kernel=3, stride=2, pads=[0, 1, 0, 1])
        self.layer1 = nn.Sequential(Residual(channels=8))
        self.conv2 = ConvNormRelu(cin=8, cout=16, kernel=3, stride=2, pads=[0, 1, 0, 1])
        self.layer2 = nn.Sequential(Residual(channels=16))
        self.conv3 = ConvNormRelu(cin=16, cout=32, kernel=3, stride=2, pads=[0, 1, 0, 1])
        self.layer3 = nn.Sequential(Residual(channels=32))
        self.conv4 = ConvNormRelu(cin=32, cout=64, kernel=3, stride=2, pads=[0, 1, 0, 1])
        self.layer4 = nn.Sequential(Residual(channels=64))
        self.conv5 = ConvNormRelu(cin=64, cout=128, kernel=3, stride=2, pads=[0, 1, 0, 1])
        self.layer5 = nn.Sequential(Residual(channels=128))

    def forward(self, images):
        x = self.layer2(self.conv2(self.layer1(self.conv1(self.conv0(images)))))
        stride8 = self.layer3(self.conv3(x))
        stride16 = self.layer4(self.conv4(stride8))
        stride32 = self.layer5(self.conv5(stride16))
        return stride8, stride16, stride32


class YoloBlock(nn.Layer):  # yolov3.py:115, 3 instances
    def __init__(self, cin, channels):
        super().__init__()
        self.conv0 = ConvNormLeakyRelu(cin=cin, cout=channels, kernel=1)
        self.conv1 = ConvNormLeakyRelu(cin=channels, cout=channels * 2, kernel=3)
        self.conv2 = ConvNormLeakyRelu(cin=channels * 2, cout=channels, kernel=1)
        self.conv3 = ConvNormLeakyRelu(cin=channels, cout=channels * 2, kernel=3)
        self.conv4 = ConvNormLeakyRelu(cin=channels * 2, cout=channels, kernel=1)
        self.conv5 = ConvNormLeakyRelu(cin=channels, cout=channels * 2, kernel=3)
        self.conv6 = nn.Conv2D(channels * 2, 24, 1, stride=1, padding=0)

    def forward(self, x):
        route = self.conv4(self.conv3(self.conv2(self.conv1(self.conv0(x)))))
        output = self.conv6(self.conv5(route))
        return route, output


class YOLOv3(nn.Layer):  # yolov3.py:134, 1 instance
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
        concat = paddle.concat([F.interpolate(self.conv1(route), scale_factor=2), stride16], axis=1)
        route, medium = self.backblock1(concat)
        concat = paddle.concat([F.interpolate(self.conv2(route), scale_factor=2), stride8], axis=1)
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
        return paddle.concat(
            [
                level_predictions(small, images, anchors=((10, 13), (16, 30), (33, 23))),
                level_predictions(medium, images, anchors=((30, 61), (62, 45), (59, 119))),
                level_predictions(big, images, anchors=((116, 90), (156, 198), (373, 326)))
            ],
            axis=1
        )

    def forward(self, images, boxes=None, labels=None, valid=None):
        if boxes is None:
            return self.predict(images)
        return self.loss(images, boxes, labels, valid)
