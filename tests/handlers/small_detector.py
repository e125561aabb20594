"""torchvision's Faster R-CNN, small enough to be packed in no time."""

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign


class SmallDetector(FasterRCNN):
    def __init__(self):
        backbone = nn.Sequential(nn.Conv2d(3, 8, 7, stride=16, padding=3), nn.ReLU())
        backbone.out_channels = 8
        super().__init__(
            backbone,
            min_size=96,
            max_size=160,
            rpn_anchor_generator=AnchorGenerator(((32,),), ((1.0,),)),
            rpn_post_nms_top_n_test=6,
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
            box_head=TwoMLPHead(8 * 3 * 3, 16),
            box_predictor=FastRCNNPredictor(16, 3),
            box_detections_per_img=4,
        )
