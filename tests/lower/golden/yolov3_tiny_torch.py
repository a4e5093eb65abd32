"""Tiny YOLOv3."""

import torch
from torch import nn
from torch.nn import functional as F


def box_targets(boxes, images):  # yolov3.py:19
    boxes = boxes.float()
    size = boxes[..., 2:4] - boxes[..., 0:2]
    extent = torch.tensor((images.shape[3], images.shape[2]), dtype=boxes.dtype, device=boxes.device)
    place = torch.cat([torch.floor((boxes[..., 0:2] + boxes[..., 2:4]) / 2.0) / extent, size / extent], dim=2)
    table = torch.tensor(
        (((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)),),
        dtype=boxes.dtype, device=boxes.device
    )
    smaller = torch.minimum(size[:, :, None, :], table[:, None, :, :])
    inter = smaller[..., 0] * smaller[..., 1]
    area = size[..., 0:1] * size[..., 1:2] + (table[..., 0] * table[..., 1])[:, None, :]
    best = torch.argmax(inter / (area - inter), dim=2).int()
    nearest = torch.take_along_dim(table.expand((boxes.shape[0], 9, 2)), best.long()[..., None], dim=1)
    log = torch.log((torch.where(size > 0.0, size, extent) / nearest).float())
    return place, log, best


def rows(head):  # yolov3.py:15
    return head.reshape((head.shape[0], 3, 8, head.shape[2], head.shape[3])).permute((0, 3, 4, 1, 2))


def cells(centre, grid):  # yolov3.py:47
    product = centre * grid
    cell = torch.floor(product)
    high = centre * 4097.0 - (centre * 4097.0 - centre)
    below = (product == cell) & (high * grid - product + (centre - high) * grid < 0.0)
    return cell - below.float()


def assign(head, place, best, labels, valid, first):  # yolov3.py:62
    grid = torch.tensor((head.shape[3], head.shape[2]), dtype=place.dtype, device=place.device)
    centre = place[..., 0:2]
    cell = cells(centre, grid)
    mine = valid & ((best < first + 3) & (best > first - 1))
    row = (cell[..., 1] * head.shape[3] + cell[..., 0]) * 3.0 + (best.float() - first)
    row = row * mine.float()
    same = mine[:, :, None] & mine[:, None, :] & (row[:, :, None] == row[:, None, :])
    turn = torch.arange(row.shape[1], dtype=row.dtype, device=row.device)
    winner = mine & ((same & (turn > turn[:, None])).float().amax(dim=2) < 0.5)
    own = labels[:, :, None] == torch.arange(3, dtype=labels.dtype, device=labels.device)
    targets = torch.clamp(torch.matmul(same.float(), own.float()), max=1.0)
    offset = (centre * grid - cell).float()
    return row.int(), winner, offset, targets


def decode(raw, images, anchors):  # yolov3.py:22
    column = torch.arange(raw.shape[2], dtype=raw.dtype, device=raw.device).reshape((raw.shape[2], 1, 1))
    row = torch.arange(raw.shape[1], dtype=raw.dtype, device=raw.device).reshape((raw.shape[1], 1, 1, 1))
    size = torch.exp(raw[..., 2:4]) * torch.tensor(anchors, dtype=raw.dtype, device=raw.device)
    concat = torch.cat(
        [
            (torch.sigmoid(raw[..., 0:1]) + column) / raw.shape[2],
            (torch.sigmoid(raw[..., 1:2]) + row) / raw.shape[1],
            size / torch.tensor((images.shape[3], images.shape[2]), dtype=raw.dtype, device=raw.device)
        ],
        dim=4
    )
    return concat.reshape((raw.shape[0], -1, 4))


def pairwise_iou(a, b):  # boxes.py:11
    low = torch.maximum(
        (a[..., 0:2] - a[..., 2:4] / 2.0)[:, :, None, :], (b[..., 0:2] - b[..., 2:4] / 2.0)[:, None, :, :]
    )
    high = torch.minimum(
        (a[..., 0:2] + a[..., 2:4] / 2.0)[:, :, None, :], (b[..., 0:2] + b[..., 2:4] / 2.0)[:, None, :, :]
    )
    side = torch.clamp(high - low, min=0.0)
    inter = side[..., 0] * side[..., 1]
    add = (a[..., 2] * a[..., 3])[:, :, None] + (b[..., 2] * b[..., 3])[:, None, :]
    return inter / (add - inter)


def level_loss(head, images, place, log_size, best, labels, valid, first, anchors):  # yolov3.py:43
    raw = rows(head)
    flat = raw.reshape((raw.shape[0], -1, 8))
    row, winner, offset, targets = assign(head, place, best, labels, valid, first=first)
    picked = torch.take_along_dim(flat, row.long()[..., None], dim=1)
    truth = place.float()
    hit = winner.float()[:, :, None]
    weight = hit * (2.0 - truth[..., 2:3] * truth[..., 3:4])
    error = log_size - picked[..., 2:4]
    xy = F.binary_cross_entropy_with_logits(picked[..., 0:2], offset, reduction='none')
    category = F.binary_cross_entropy_with_logits(picked[..., 5:], targets, reduction='none')
    overlap = pairwise_iou(decode(raw.detach(), images, anchors=anchors), truth) * hit.permute((0, 2, 1))
    place_of = torch.arange(flat.shape[1], dtype=row.dtype, device=row.device)[:, None] == row[:, None, :]
    found = (place_of & winner[:, None, :]).float().amax(dim=2)
    objectness = F.binary_cross_entropy_with_logits(flat[..., 4], found, reduction='none')
    objectness = objectness * (found + (1.0 - found) * (overlap.amax(dim=2) < 0.7).float())
    stack = torch.stack(
        [(xy * weight).sum(), (error * error * 0.5 * weight).sum(), objectness.sum(), (category * hit).sum()],
        dim=0
    )
    return stack / head.shape[0]


def level_predictions(head, images, anchors):  # yolov3.py:35
    raw = rows(head)
    return torch.cat(
        [decode(raw, images, anchors=anchors), torch.sigmoid(raw[..., 4:]).reshape((raw.shape[0], -1, 4))],
        dim=2
    )


class ConvNormReluStride1(nn.Module):  # layers.py:28, 11 instances
    def __init__(self, cin, cout, kernel):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride=1, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(cout, eps=1e-05, momentum=0.9)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)), inplace=True)


class ConvNormReluStride2(nn.Module):  # layers.py:28, 5 instances
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, stride=2, padding=0, bias=False)
        self.norm = nn.BatchNorm2d(cout, eps=1e-05, momentum=0.9)

    def forward(self, x):
        return F.relu(self.norm(self.conv(F.pad(x, (0, 1, 0, 1)))), inplace=True)


class ConvNormLeakyReluStride1(nn.Module):  # layers.py:28, 20 instances
    def __init__(self, cin, cout, kernel):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride=1, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(cout, eps=1e-05, momentum=0.1)

    def forward(self, x):
        return F.leaky_relu(self.norm(self.conv(x)), 0.1, inplace=True)


class Residual(nn.Module):  # darknet.py:12, 5 instances
    def __init__(self, channels):
        super().__init__()
        self.conv1 = ConvNormReluStride1(cin=channels, cout=channels // 2, kernel=1)
        self.conv2 = ConvNormReluStride1(cin=channels // 2, cout=channels, kernel=3)

    def forward(self, x):
        return self.conv2(self.conv1(x)) + x


class DarkNet(nn.Module):  # darknet.py:24, 1 instance
    def __init__(self):
        super().__init__()
        self.conv0 = ConvNormReluStride1(cin=3, cout=4, kernel=3)
        self.conv1 = ConvNormReluStride2(cin=4, cout=8)
        self.layer1 = nn.Sequential(Residual(channels=8))
        self.conv2 = ConvNormReluStride2(cin=8, cout=16)
        self.layer2 = nn.Sequential(Residual(channels=16))
        self.conv3 = ConvNormReluStride2(cin=16, cout=32)
        self.layer3 = nn.Sequential(Residual(channels=32))
        self.conv4 = ConvNormReluStride2(cin=32, cout=64)
        self.layer4 = nn.Sequential(Residual(channels=64))
        self.conv5 = ConvNormReluStride2(cin=64, cout=128)
        self.layer5 = nn.Sequential(Residual(channels=128))

    def forward(self, images):
        x = self.layer2(self.conv2(self.layer1(self.conv1(self.conv0(images)))))
        stride8 = self.layer3(self.conv3(x))
        stride16 = self.layer4(self.conv4(stride8))
        stride32 = self.layer5(self.conv5(stride16))
        return stride8, stride16, stride32


class YoloBlock(nn.Module):  # yolov3.py:115, 3 instances
    def __init__(self, cin, channels):
        super().__init__()
        self.conv0 = ConvNormLeakyReluStride1(cin=cin, cout=channels, kernel=1)
        self.conv1 = ConvNormLeakyReluStride1(cin=channels, cout=channels * 2, kernel=3)
        self.conv2 = ConvNormLeakyReluStride1(cin=channels * 2, cout=channels, kernel=1)
        self.conv3 = ConvNormLeakyReluStride1(cin=channels, cout=channels * 2, kernel=3)
        self.conv4 = ConvNormLeakyReluStride1(cin=channels * 2, cout=channels, kernel=1)
        self.conv5 = ConvNormLeakyReluStride1(cin=channels, cout=channels * 2, kernel=3)
        self.conv6 = nn.Conv2d(channels * 2, 24, 1, stride=1, padding=0, bias=True)

    def forward(self, x):
        route = self.conv4(self.conv3(self.conv2(self.conv1(self.conv0(x)))))
        output = self.conv6(self.conv5(route))
        return route, output


class YOLOv3(nn.Module):  # yolov3.py:134, 1 instance
    def __init__(self):
        super().__init__()
        self.backbone = DarkNet()
        self.backblock0 = YoloBlock(cin=128, channels=64)
        self.conv1 = ConvNormLeakyReluStride1(cin=64, cout=32, kernel=1)
        self.backblock1 = YoloBlock(cin=96, channels=32)
        self.conv2 = ConvNormLeakyReluStride1(cin=32, cout=16, kernel=1)
        self.backblock2 = YoloBlock(cin=48, channels=16)

    def heads(self, images):
        stride8, stride16, stride32 = self.backbone(images)
        route, big = self.backblock0(stride32)
        concat = torch.cat([F.interpolate(self.conv1(route), scale_factor=2), stride16], dim=1)
        route, medium = self.backblock1(concat)
        concat = torch.cat([F.interpolate(self.conv2(route), scale_factor=2), stride8], dim=1)
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
        return torch.cat(
            [
                level_predictions(small, images, anchors=((10, 13), (16, 30), (33, 23))),
                level_predictions(medium, images, anchors=((30, 61), (62, 45), (59, 119))),
                level_predictions(big, images, anchors=((116, 90), (156, 198), (373, 326)))
            ],
            dim=1
        )

    def forward(self, images, boxes=None, labels=None, valid=None):
        if boxes is None:
            return self.predict(images)
        return self.loss(images, boxes, labels, valid)
