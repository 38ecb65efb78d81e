"""Write an untrained network of fold 0 for a preprocessed dataset; run by predict.py in nnU-Net's environment.

python nnunet_checkpoint.py 901
"""

import json
import sys
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args

trainer = get_trainer_from_args(sys.argv[1], "2d", 0, device=torch.device("cpu"))
trainer.initialize()
# a training notes here which axes may be mirrored at test time; without it nothing would be
trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
# training writes these when it starts
for name, value in (("plans.json", trainer.plans_manager.plans), ("dataset.json", trainer.dataset_json)):
    (Path(trainer.output_folder_base) / name).write_text(json.dumps(value))
