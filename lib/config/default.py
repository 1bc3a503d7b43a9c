"""Every key of the configuration, its default and its meaning.

Sizes are (width, height). Keys that only the older codebases of the HRNet family act on are kept,
so that published YAML files load; `lib/config/check.py` lists them in NO_LONGER_USED.
"""

from yacs.config import CfgNode as Node

_C = Node()

_C.OUTPUT_DIR = "output"  # results go to OUTPUT_DIR/<dataset>/<model>/<run>
_C.LOG_DIR = "log"  # TensorBoard logs go to LOG_DIR/<dataset>/<model>/<run>
_C.DATA_DIR = ""  # put before DATASET.ROOT and MODEL.PRETRAINED where those are relative
_C.GPUS = (0,)  # without torchrun the first is used; torchrun gives each process its own
_C.WORKERS = 4  # loader processes of each training process
_C.PRINT_FREQ = 20  # steps between two log lines
_C.AUTO_RESUME = False  # go on from checkpoint.pth of the run's folder where there is one
_C.PIN_MEMORY = True  # loader copies batches to page-locked memory (GPU only)
_C.RANK = 0  # set by torchrun
_C.SEED = 0  # of weights, order and augmentation

_C.CUDNN = Node()
_C.CUDNN.BENCHMARK = True  # let cuDNN try its kernels and keep the fastest
_C.CUDNN.DETERMINISTIC = False  # only kernels that give the same result each time, on any device
_C.CUDNN.ENABLED = True  # False: cuDNN is left out
_C.MODEL = Node()
_C.MODEL.NAME = "pose_tokenpose_s"  # a name of lib.models.MODELS
_C.MODEL.INIT_WEIGHTS = True  # initialise the stem as ResNets are (else torch's default)
_C.MODEL.PRETRAINED = ""  # weights to start from; layers in EXTRA.PRETRAINED_LAYERS, or all
_C.MODEL.NUM_JOINTS = 16  # J, the joints of a person: 16 in MPII, 17 in COCO
_C.MODEL.TAG_PER_JOINT = True  # no longer used
_C.MODEL.TARGET_TYPE = "gaussian"  # the only kind of target
_C.MODEL.IMAGE_SIZE = [256, 256]  # of the crop, in pixels, divisible by 4
_C.MODEL.HEATMAP_SIZE = [64, 64]  # in cells
_C.MODEL.SIGMA = 2.0  # of a target's Gaussian, in heatmap cells
_C.MODEL.DIM = 256  # width of a token
_C.MODEL.PATCH_SIZE = [4, 4]  # of the stride-4 feature map
_C.MODEL.TRANSFORMER_DEPTH = 12  # layers of the main transformer
_C.MODEL.TRANSFORMER_HEADS = 8  # of each attention; they share DIM
_C.MODEL.TRANSFORMER_MLP_RATIO = 3.0  # hidden width of the MLP, in DIM
_C.MODEL.DROP_PATH = 0.0  # how often the last layer leaves out a half; before it, linearly less
_C.MODEL.POS_EMBEDDING_TYPE = "sine-full"  # none, learnable, sine or sine-full
_C.MODEL.INIT = True  # truncated normals for the transformer's weights (else torch's default)
_C.MODEL.HIDDEN_HEATMAP_DIM = -1  # of the head's hidden layer; -1: cells/8 where the rule asks
_C.MODEL.BASE_CHANNEL = 32  # of TokenPose-B and -L
_C.MODEL.NUM_BRANCHES = 1  # of TokenPose-B and -L
_C.MODEL.MULTI_TRANSFORMER_DEPTH = [12, 12]  # of TokenPose-B and -L
_C.MODEL.MULTI_TRANSFORMER_HEADS = [16, 16]  # of TokenPose-B and -L
_C.MODEL.MULTI_DIM = [48, 48]  # of TokenPose-B and -L
_C.MODEL.EXTRA = Node(new_allowed=True)  # what single networks add, PRETRAINED_LAYERS for one

_C.MODEL.SPARSITY = Node()
_C.MODEL.SPARSITY.PRUNE = "connection"  # none, connection (the published method) or token
_C.MODEL.SPARSITY.PRUNE_LAYERS = [3, 6, 9]  # 0-based; pruned by that layer's attention
_C.MODEL.SPARSITY.KEEP_RATIO = 0.7  # kept at each stage, of what was alive before it
_C.MODEL.SPARSITY.JOINT_DEPTH = 3  # joint layers after the transformer; 0 leaves them out
_C.MODEL.SPARSITY.JOINT_HOPS = 1  # limbs a joint may look along; 0 self and mirror; -1 no mask

_C.LOSS = Node()
_C.LOSS.USE_OHKM = False  # only the TOPK hardest joints of each person count
_C.LOSS.TOPK = 8  # of USE_OHKM
_C.LOSS.USE_TARGET_WEIGHT = True  # joints that are not annotated do not count
_C.LOSS.USE_DIFFERENT_JOINTS_WEIGHT = False  # outer joints (wrist, ankle, ...) count more

_C.DATASET = Node()
_C.DATASET.ROOT = "data/mpii"  # folder of annot/ and images/
_C.DATASET.DATASET = "mpii"  # a name of lib.dataset.DATASETS
_C.DATASET.TRAIN_SET = "train"  # reads annot/<set>.json
_C.DATASET.TEST_SET = "valid"  # scored where annot/gt_<set>.mat exists, unless it is `test`
_C.DATASET.DATA_FORMAT = "jpg"  # jpg: files under images/; zip: entries of images.zip
_C.DATASET.HYBRID_JOINTS_TYPE = ""  # no longer used
_C.DATASET.SELECT_DATA = False  # leave out people whose annotation does not fit their box
_C.DATASET.FLIP = True  # mirror half of the samples
_C.DATASET.SCALE_FACTOR = 0.25  # box times 1 + normal(0, this), clipped to one such deviation
_C.DATASET.ROT_FACTOR = 30.0  # degrees, normal, clipped to two deviations, for 60 % of samples
_C.DATASET.PROB_HALF_BODY = 0.0  # share of people seen as upper or lower half
_C.DATASET.NUM_JOINTS_HALF_BODY = 8  # only people with more visible joints than this
_C.DATASET.COLOR = 0.0  # largest relative change of brightness, contrast and saturation
_C.DATASET.CUTOUT = 0.0  # share of samples that lose a square
_C.DATASET.SKIP_BAD_IMAGES = 0  # people of unreadable images to replace in training, a process
_C.DATASET.COLOR_RGB = True  # channels as RGB; False: BGR, as the first codebases had it

_C.TRAIN = Node()
_C.TRAIN.LR = 0.001  # learning rate at the start, after the warm-up
_C.TRAIN.LR_SCHEDULER = "MultiStepLR"  # MultiStepLR or CosineAnnealingLR
_C.TRAIN.LR_STEP = [200, 260]  # epochs at which MultiStepLR multiplies by LR_FACTOR
_C.TRAIN.LR_FACTOR = 0.1  # of MultiStepLR
_C.TRAIN.LR_END = 0.00001  # where CosineAnnealingLR ends
_C.TRAIN.WARMUP_STEPS = 0  # steps over which the rate rises linearly from 0
_C.TRAIN.OPTIMIZER = "adam"  # adam, adamw or sgd
_C.TRAIN.ADAM_EPS = 1e-8  # of adam and adamw; 1e-12 learns sooner, as these gradients are tiny
_C.TRAIN.MOMENTUM = 0.9  # of sgd
_C.TRAIN.NESTEROV = False  # of sgd
_C.TRAIN.WD = 0.0001  # weight decay, of adamw and sgd (the family's adam takes none)
_C.TRAIN.GAMMA1 = 0.99  # no longer used
_C.TRAIN.GAMMA2 = 0.0  # no longer used
_C.TRAIN.BEGIN_EPOCH = 0  # the first epoch, counted from 0
_C.TRAIN.END_EPOCH = 300  # training ends before this epoch
_C.TRAIN.RESUME = False  # go on from TRAIN.CHECKPOINT
_C.TRAIN.CHECKPOINT = ""  # of RESUME
_C.TRAIN.BATCH_SIZE_PER_GPU = 16  # people that a process computes at a time
_C.TRAIN.ACCUMULATE = 1  # times that, for one step: their gradients are summed
_C.TRAIN.PRECISION = "fp32"  # of products and convolutions: fp32, bf16 or fp16 (loss is scaled)
_C.TRAIN.CLIP_GRAD = 0.0  # largest norm of the gradient, longer ones are shortened; 0: never
_C.TRAIN.EMA_DECAY = 0.0  # of an average of the weights, which is tested and kept; 0: none
_C.TRAIN.BATCH_NORM = "own"  # statistics of each process, sync: of all (GPUs only), or frozen
_C.TRAIN.SKIP_NOT_FINITE = 0  # steps without a finite loss and gradient to skip in a run
_C.TRAIN.CHECKPOINT_STEPS = 0  # also write checkpoint.pth every so many steps; 0: after epochs
_C.TRAIN.CHECKPOINT_MINUTES = 0.0  # also every so many minutes; 0: not
_C.TRAIN.SHUFFLE = True  # a new order of the samples in each epoch
_C.TEST = Node()
_C.TEST.BATCH_SIZE_PER_GPU = 16  # people a step and process
_C.TEST.MODEL_FILE = ""  # to test: weights, .onnx or .xml; empty: final_state.pth of the run
_C.TEST.PRECISION = "fp32"  # as TRAIN.PRECISION; openvino has no fp16, onnx fp32 only
_C.TEST.RUNTIME = "eager"  # eager, compiled (torch.compile), onnx, or openvino, where installed
_C.TEST.FLIP_TEST = True  # mean of the picture's heatmaps and its mirror picture's
_C.TEST.SHIFT_HEATMAP = False  # no longer used
_C.TEST.POST_PROCESS = True  # DARK: joints between cells; False: the highest cell
_C.TEST.BLUR_KERNEL = 11  # of DARK, odd; 11 for sigma 2
_C.TEST.USE_GT_BBOX = True  # of COCO: annotated boxes, not detected ones
_C.TEST.IMAGE_THRE = 0.0  # of COCO: detected boxes with a lower score are left out
_C.TEST.NMS_THRE = 1.0  # of COCO's box suppression
_C.TEST.SOFT_NMS = False  # of COCO's pose suppression
_C.TEST.OKS_THRE = 0.9  # of COCO's pose suppression
_C.TEST.IN_VIS_THRE = 0.2  # of COCO: joints with a lower score do not count
_C.TEST.COCO_BBOX_FILE = ""  # of COCO: the detected boxes
_C.TEST.BBOX_THRE = 1.0  # of COCO's boxes
_C.DEBUG = Node()
_C.DEBUG.DEBUG = False  # draw the first batch of every epoch, as the next four ask
_C.DEBUG.SAVE_BATCH_IMAGES_GT = False  # crops with the annotated joints
_C.DEBUG.SAVE_BATCH_IMAGES_PRED = False  # crops with the predicted joints
_C.DEBUG.SAVE_HEATMAPS_GT = False  # the target heatmaps
_C.DEBUG.SAVE_HEATMAPS_PRED = False  # the predicted heatmaps


def get_cfg() -> Node:
    """Return a copy of the defaults that may be changed."""
    return _C.clone()
