"""ResNet-18 as a class that needs no arguments, which is what `--model-file` asks for."""

from torchvision.models.resnet import BasicBlock, ResNet


class ResNet18(ResNet):
    """torchvision's, with the weights of the archive."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])
