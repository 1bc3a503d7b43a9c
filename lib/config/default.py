"""Every key of the configuration, its default and its meaning.

Sizes are (width, height). Keys with no effect are kept so that published YAML files of the HRNet
family load; a run logs those that are set. The comments are the text of docs/configuration.md:
`python docs/make_configuration.py > docs/configuration.md`.
"""

from yacs.config import CfgNode as Node

_C = Node()

_C.OUTPUT_DIR = "output"  # results; a run writes to `<dataset>/<model>/<run>` in it
_C.LOG_DIR = "log"  # TensorBoard logs, in `<dataset>/<model>/<run>` as well
_C.DATA_DIR = ""  # prefix of relative paths: DATASET.ROOT, DATASET.SKELETON, MODEL.PRETRAINED
_C.GPUS = (0,)  # the first is used; with torchrun each process uses the GPU of its local rank
_C.WORKERS = 4  # data loader processes of each training process
_C.PRINT_FREQ = 20  # steps between two log lines
_C.AUTO_RESUME = False  # continue from checkpoint.pth in the run's folder, if it exists
_C.PIN_MEMORY = True  # load batches into page-locked memory (GPU only)
_C.RANK = 0  # no effect: torchrun sets the rank
_C.SEED = 0  # seed of the initial weights, the order of samples and augmentation

_C.CUDNN = Node()  # cuDNN and deterministic kernels
_C.CUDNN.BENCHMARK = True  # let cuDNN time its kernels and choose the fastest
_C.CUDNN.DETERMINISTIC = False  # use only kernels with repeatable results, on any device
_C.CUDNN.ENABLED = True  # use cuDNN

_C.MODEL = Node()  # the network
_C.MODEL.NAME = "pose_tokenpose_s"  # name of the network in lib.models.MODELS
_C.MODEL.INIT_WEIGHTS = True  # initialise the backbone with its own rule; False: torch's default
_C.MODEL.BACKBONE = "stem"  # stem: the network's own; or a name in BACKBONES, or in timm
_C.MODEL.BACKBONE_STRIDE = 4  # image pixels per cell of its feature map; the network's own sets it
_C.MODEL.PRETRAINED = ""  # initial weights: a file, timm (its hub) or package:NAME (installed)
_C.MODEL.NUM_JOINTS = 16  # J, joints of a person; must match the skeleton (MPII 16, COCO 17)
_C.MODEL.TAG_PER_JOINT = True  # no effect: for bottom-up networks
_C.MODEL.TARGET_TYPE = "gaussian"  # kind of target; only gaussian
_C.MODEL.IMAGE_SIZE = [256, 256]  # input crop, pixels; divisible by BACKBONE_STRIDE
_C.MODEL.HEATMAP_SIZE = [64, 64]  # heatmaps, in cells
_C.MODEL.SIGMA = 2.0  # standard deviation of a target's Gaussian, in heatmap cells
_C.MODEL.DIM = 256  # width of a token
_C.MODEL.PATCH_SIZE = [4, 4]  # cells of the feature map per visual token
_C.MODEL.TRANSFORMER_DEPTH = 12  # layers of the main transformer; of each of three in TokenPose-L
_C.MODEL.TRANSFORMER_HEADS = 8  # attention heads of a layer; must divide DIM
_C.MODEL.TRANSFORMER_MLP_RATIO = 3.0  # hidden width of the MLP, relative to DIM
_C.MODEL.DROP_PATH = 0.0  # drop path rate of the last layer; grows linearly from 0 at the first
_C.MODEL.ATTENTION_SCALE = "dim"  # divide scores by the root of DIM, or of a head's width (T, B, L)
_C.MODEL.POS_EMBEDDING_TYPE = "sine-full"  # none, learnable, sine or sine-full
_C.MODEL.INIT = True  # truncated normal weights in the transformer; False: torch's default
_C.MODEL.HEAD = "mlp"  # mlp: a token to all cells, as published; filter: token times cells
_C.MODEL.HIDDEN_HEATMAP_DIM = -1  # hidden width of mlp; -1: cells / 8; no layer if below 2 DIM
_C.MODEL.BASE_CHANNEL = 32  # no effect: EXTRA.STAGE3 gives the channels of HRNet
_C.MODEL.NUM_BRANCHES = 1  # no effect: in published defaults only
_C.MODEL.MULTI_TRANSFORMER_DEPTH = [12, 12]  # no effect: in published defaults only
_C.MODEL.MULTI_TRANSFORMER_HEADS = [16, 16]  # no effect: in published defaults only
_C.MODEL.MULTI_DIM = [48, 48]  # no effect: in published defaults only

_C.MODEL.FILTER = Node()  # the filter head
_C.MODEL.FILTER.STRIDES = [4]  # strides of the backbone's features that it merges, finest first
_C.MODEL.FILTER.DIM = 96  # width of a cell's embedding

_C.MODEL.EXTRA = Node(new_allowed=True)  # keys of single networks, see networks.md

_C.MODEL.SPARSITY = Node()  # the two sparse parts, see sparsity.md
_C.MODEL.SPARSITY.PRUNE = "connection"  # none, connection (the published method) or token
_C.MODEL.SPARSITY.PRUNE_LAYERS = [3, 6, 9]  # 0-based layers that prune, by their own attention
_C.MODEL.SPARSITY.KEEP_RATIO = 0.7  # share kept at each pruning stage, of what is left before it
_C.MODEL.SPARSITY.JOINT_DEPTH = 3  # joint layers after the transformer; 0: none
_C.MODEL.SPARSITY.JOINT_HOPS = 1  # limbs a joint attends across; 0: itself and mirror; -1: no mask

_C.LOSS = Node()  # the loss of the heatmaps
_C.LOSS.USE_OHKM = False  # hard keypoint mining: only the TOPK joints with the greatest loss count
_C.LOSS.TOPK = 8  # joints of a person that count with USE_OHKM
_C.LOSS.USE_TARGET_WEIGHT = True  # ignore joints that are not annotated
_C.LOSS.USE_OUTSIDE_JOINTS = False  # joints outside the crop count, with an empty heatmap
_C.LOSS.USE_DIFFERENT_JOINTS_WEIGHT = False  # outer joints (wrist, ankle, ...) weigh more

_C.DATASET = Node()  # the data and its augmentation
_C.DATASET.ROOT = "data/mpii"  # folder that has annot/ (COCO: annotations/) and images/
_C.DATASET.DATASET = "mpii"  # name of the data set in lib.dataset.DATASETS
_C.DATASET.SKELETON = ""  # a name in lib.dataset.SKELETONS or a .yaml; empty: the data set's own
_C.DATASET.TRAIN_SET = "train"  # `annot/<set>.json` to train on; of COCO such as train2017
_C.DATASET.TEST_SET = "valid"  # `annot/<set>.json` to test on; scored if `gt_<set>.mat` exists
_C.DATASET.DATA_FORMAT = "jpg"  # jpg: files in images/; zip: images.zip (COCO: `images/<set>.zip`)
_C.DATASET.UNBIASED = True  # map pixel centers to pixel centers; False: HRNet's published crop
_C.DATASET.HYBRID_JOINTS_TYPE = ""  # no effect: was part of the output folder's name
_C.DATASET.SELECT_DATA = False  # no effect: all people are used
_C.DATASET.FLIP = True  # mirror half of the training samples
_C.DATASET.SCALE_FACTOR = 0.25  # box size times 1 + normal(0, this), clipped to one deviation
_C.DATASET.ROT_FACTOR = 30.0  # degrees, normal, clipped to two deviations; 60 % of samples rotate
_C.DATASET.PROB_HALF_BODY = 0.0  # share of samples that show the upper or lower body only
_C.DATASET.NUM_JOINTS_HALF_BODY = 8  # half body needs more visible joints than this
_C.DATASET.COLOR = 0.0  # largest relative change of brightness, contrast and saturation
_C.DATASET.CUTOUT = 0.0  # share of samples with a square cut out
_C.DATASET.SKIP_BAD_IMAGES = 0  # people with unreadable images to replace in training, per process
_C.DATASET.MAX_PIXELS = 200_000_000  # larger images and video frames are not decoded
_C.DATASET.COLOR_RGB = True  # input channels in RGB order; False: BGR, as in early HRNet code

_C.TRAIN = Node()  # training
_C.TRAIN.LR = 0.001  # initial learning rate, reached after the warm-up
_C.TRAIN.BACKBONE_LR = 0.0  # initial learning rate of the backbone; 0: that of all
_C.TRAIN.FROZEN_STAGES = 0  # first stages of the backbone that are not trained
_C.TRAIN.LR_SCHEDULER = "MultiStepLR"  # MultiStepLR or CosineAnnealingLR
_C.TRAIN.LR_STEP = [200, 260]  # epochs at which MultiStepLR multiplies by LR_FACTOR
_C.TRAIN.LR_FACTOR = 0.1  # factor of MultiStepLR
_C.TRAIN.LR_END = 0.00001  # final learning rate of CosineAnnealingLR
_C.TRAIN.WARMUP_STEPS = 0  # steps over which the learning rate rises linearly
_C.TRAIN.OPTIMIZER = "adam"  # adam, adamw or sgd
_C.TRAIN.ADAM_EPS = 1e-8  # epsilon of adam and adamw; try 1e-12, as these gradients are tiny
_C.TRAIN.MOMENTUM = 0.9  # momentum of sgd
_C.TRAIN.NESTEROV = False  # Nesterov momentum of sgd
_C.TRAIN.WD = 0.0001  # weight decay of adamw and sgd; adam has none, as in HRNet's code
_C.TRAIN.GAMMA1 = 0.99  # no effect
_C.TRAIN.GAMMA2 = 0.0  # no effect
_C.TRAIN.BEGIN_EPOCH = 0  # first epoch, counted from 0
_C.TRAIN.END_EPOCH = 300  # training ends before this epoch
_C.TRAIN.RESUME = False  # continue from TRAIN.CHECKPOINT; AUTO_RESUME has priority
_C.TRAIN.CHECKPOINT = ""  # checkpoint of RESUME; empty: checkpoint.pth of the run
_C.TRAIN.BATCH_SIZE_PER_GPU = 16  # people in a micro-batch of a process
_C.TRAIN.ACCUMULATE = 1  # micro-batches whose gradients are summed for one step
_C.TRAIN.PRECISION = "fp32"  # autocast to fp32, bf16 or fp16 (fp16 scales the loss)
_C.TRAIN.CLIP_GRAD = 0.0  # largest norm of the gradient; 0: no clipping
_C.TRAIN.EMA_DECAY = 0.0  # decay of averaged weights, which are tested and saved; 0: no average
_C.TRAIN.BATCH_NORM = "own"  # statistics: own (each process), sync (across GPUs) or frozen
_C.TRAIN.SKIP_NOT_FINITE = 0  # steps with nan or infinite loss or gradient that a run may skip
_C.TRAIN.CHECKPOINT_STEPS = 0  # write checkpoint.pth every N steps too; 0: after epochs
_C.TRAIN.CHECKPOINT_MINUTES = 0.0  # write checkpoint.pth every N minutes too; 0: never
_C.TRAIN.SHUFFLE = True  # shuffle the samples in each epoch

_C.TEST = Node()  # testing and prediction
_C.TEST.BATCH_SIZE_PER_GPU = 16  # people in a batch of a process
_C.TEST.INTERVAL = 1  # epochs of training from one test to the next; the last is always tested
_C.TEST.MODEL_FILE = ""  # weights, .onnx or .xml to test; empty: final_state.pth of the run
_C.TEST.PRECISION = "fp32"  # fp32, bf16 or fp16; openvino has no fp16, onnx only fp32
_C.TEST.RUNTIME = "eager"  # eager, compiled (torch.compile), onnx or openvino
_C.TEST.SMOOTH_CROP = False  # average pixels where a crop is much smaller than its image
_C.TEST.FLIP_TEST = True  # average the heatmaps of the image and its mirror image
_C.TEST.SHIFT_HEATMAP = False  # shift flipped heatmaps by a cell; not if DATASET.UNBIASED
_C.TEST.POST_PROCESS = True  # decode finer than a cell; False: highest cell
_C.TEST.REFINEMENT = "dark"  # how: dark, or quarter (of a cell, as HRNet does)
_C.TEST.BLUR_KERNEL = 11  # blur kernel of DARK, odd; 11 suits SIGMA 2
_C.TEST.USE_GT_BBOX = True  # COCO: annotated boxes; False: those of COCO_BBOX_FILE
_C.TEST.COCO_BBOX_FILE = ""  # COCO: file of detected boxes
_C.TEST.IMAGE_THRE = 0.0  # COCO: least score of a detected box
_C.TEST.IN_VIS_THRE = 0.2  # COCO: only joints with a higher score count in a person's score
_C.TEST.OKS_THRE = 0.9  # COCO: of two people of higher OKS only the better one stays
_C.TEST.SOFT_NMS = False  # COCO: lower the score of similar people instead, and keep 20
_C.TEST.NMS_THRE = 1.0  # no effect: boxes are not suppressed
_C.TEST.BBOX_THRE = 1.0  # no effect: older codebases had it

_C.DEBUG = Node()  # images of the first batch of every epoch
_C.DEBUG.DEBUG = False  # draw them; the other keys choose which
_C.DEBUG.SAVE_BATCH_IMAGES_GT = False  # crops with annotated joints
_C.DEBUG.SAVE_BATCH_IMAGES_PRED = False  # crops with predicted joints
_C.DEBUG.SAVE_HEATMAPS_GT = False  # target heatmaps
_C.DEBUG.SAVE_HEATMAPS_PRED = False  # predicted heatmaps


def get_cfg() -> Node:
    """Return a copy of the defaults that may be changed."""
    return _C.clone()
