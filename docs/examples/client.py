"""From pictures to answers with the Client, cell by cell: open it in a notebook editor, or run it as it stands."""

# %% The Client says nothing by itself; what it hears goes where you send it.
import os
from pathlib import Path

from trainserve import Client
from trainserve.client.listener import Lines

client = Client(Lines(print))
epochs, limit = (1, 30) if "QUICK" in os.environ else (7, None)  # limit: pictures of a class

# %% Pictures: a folder a class. Yours do as well.
digits = client.get_data("digits", limit=limit)
print(f"{digits.pictures} pictures of {digits.classes} classes in {digits.path}: {digits.licence}")

# %% What a run would be, before anything starts.
plan = client.plan(data=digits.path, nodes=2, epochs=epochs, warmup_epochs=0, flip=0, crop_scale=(0.8, 1.0), lr=0.05)
name = plan.classifier.metadata.name

# %% Train in the background, and look at it while it goes. Without `detach`, `train` returns when the run has ended.
client.train(plan, detach=True)
for event in client.events(name, follow=True):
    if event["kind"] == "epoch":
        print(f"epoch {event['epoch']}: top-1 {event['top1']:.1%}")

# %% Wait for success: a run that ended otherwise, or takes too long, is an exception.
result = client.wait(name, timeout_s=1800)
print(f"{result['name']}: {result['state']}, top-1 {result['top1']:.1%} after {result['step']} steps")

# %% What happened to it, and what its first rank wrote.
for condition in client.status(name)["conditions"]:
    print(condition["lastTransitionTime"], condition["type"], condition["status"], condition["message"])
for line in client.logs(name, rank=0):
    print(line)

# %% Pack it for any TorchServe.
archive = client.package(name, "digits.mar", version="1.0", top_k=3)
print(f"{archive.path}: model {archive.name} {archive.version}, sha256 {archive.sha256}")

# %% Serve it for the length of a block, and ask for some pictures.
with client.serve(archive.path, engine="native") as server:
    print(f"{server.name} answers at {server.url}")
    for answer in client.predict(server.name, sorted(Path(digits.path, "3").glob("*.png"))[:5]):
        best = answer.prediction.classes[0] if answer.prediction else None
        print(answer.picture, f"{best.name} {best.probability:.1%}" if best else answer.error)
