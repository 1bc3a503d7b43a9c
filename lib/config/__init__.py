from lib.config.default import get_cfg
from lib.config.load import load_cfg

__all__ = ["get_cfg", "load_cfg"]
