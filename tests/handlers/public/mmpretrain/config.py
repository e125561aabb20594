"""A configuration of MMPretrain: LeNet-5, four classes, pictures of 32 grey pixels square."""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='LeNet5'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=4, in_channels=120),
    data_preprocessor=dict(mean=[127.5], std=[127.5], num_classes=4),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomGrayscale', prob=1.0, keep_channels=False),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
