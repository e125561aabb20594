"""torchvision's FCN on a backbone of one layer."""

from collections import OrderedDict

from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.fcn import FCN, FCNHead


class SmallSegmenter(FCN):
    def __init__(self):
        layers = nn.Sequential(OrderedDict(last=nn.Conv2d(3, 8, 3, padding=1)))
        super().__init__(IntermediateLayerGetter(layers, {"last": "out"}), FCNHead(8, 5))
