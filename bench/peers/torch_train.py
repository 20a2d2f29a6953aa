"""One measurement of PyTorch: torch_train.py NET BATCH THREADS f32|bf16 plain|last SECONDS
Steps of SGD with momentum on one batch in memory, for so many seconds of CPU time; the last
line is JSON."""
import json
import os
import sys
import time

NET, BATCH, THREADS, PRECISION, LAYOUT, SECONDS = sys.argv[1:7]
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = THREADS
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch
import train_nets

torch.set_num_threads(int(THREADS))
torch.manual_seed(1)
_, CHANNELS, SIZE, CLASSES = train_nets.NETS[NET]
model = train_nets.module(NET).train()
data = torch.randn(int(BATCH), CHANNELS, SIZE, SIZE)
labels = torch.randint(0, CLASSES, (int(BATCH),))
if LAYOUT == "last":
    model = model.to(memory_format=torch.channels_last)
    data = data.to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9, weight_decay=0.0005)
loss_of = torch.nn.CrossEntropyLoss()


def step():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=PRECISION == "bf16"):
        scores = model(data)
    loss = loss_of(scores.float(), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


for _ in range(2):
    step()
count, start, start_cpu = 0, time.perf_counter(), time.process_time()
while count < 2 or time.process_time() - start_cpu < float(SECONDS):
    loss = step()
    count += 1
pictures = count * int(BATCH)
print(json.dumps({"per_second": pictures / (time.perf_counter() - start), "steps": count,
                  "per_cpu_second": pictures / (time.process_time() - start_cpu), "loss": loss}))
