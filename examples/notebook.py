# %% [markdown]
"""# A scaling study from Python.

Plans and runs a small sweep, loads its table, draws its figure, and uses a tokenizer that it has
trained. Everything is written below the working folder; about a minute on two idle cores. An
editor that knows `# %%` cells (VS Code, PyCharm, Jupytext) shows this file as a notebook.
"""

# %%
import numpy as np
from PIL import Image

import analysis
import gigatok
from gigatok.data.splits import load_split
from orchestration import Study

# %% [markdown]
# ## Plan
# Nothing runs yet: trials, stages, and what they will cost. Shown at the end of a cell, a plan
# prints itself as `python -m orchestration plan` does.

# %%
study = Study("decoder_scaling", scale="smoke")
plan = study.plan()
print(plan)

# %% [markdown]
# ## Run
# Stages that are complete are reused: a second run takes a second. Interrupt the kernel, and the
# same call continues from the checkpoints.

# %%
result = study.run(jobs=2)
print(result)
assert result.exit_code == 0, study.status()

# %% [markdown]
# ## Look
# States of all stages; why each of them would run or be reused; and the scores, a row per trial.

# %%
print(study.status())
print(study.explain("S-S")[0])
for row in study.table():
    print(f"{row['trial']:>5}  PSNR {row['psnr']:.2f} dB  AR loss {row['ar_val_loss']:.3f}")

# %% [markdown]
# ## Table and figure
# `analysis` reads the tracking store: one row per trial, with units and run ids.

# %%
store = f"sqlite:///{study.store.root / 'mlflow.db'}"
runs = analysis.load("decoder_scaling", store)
print(runs.select("trial", "psnr", "rfid", "ar_val_loss"))
print(*analysis.save(analysis.figure(runs), "figures"), sep="\n")

# %% [markdown]
# ## Use a tokenizer
# Images are uint8 `(H, W, 3)`; codes are int64 `(T,)`.

# %%
tokenizer = gigatok.load(study.output("S-S", "train_tokenizer"))
trial = plan.plan.trials[0].trial
image = load_split(trial.config.split("val")).centred(np.array([0]))[0]
codes = tokenizer.encode(image)
again = tokenizer.decode(codes)
error = np.mean((again.astype(float) - image) ** 2)
print(f"{image.shape} -> codes {codes.shape} -> {again.shape}, mean squared error {error:.0f}")
Image.fromarray(np.hstack([image, again])).save("reconstruction.png")
