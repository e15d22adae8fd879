"""The second engine: FastAPI in front, a process per model behind, which runs the archive's own handler.

engine.py     starts and stops everything                     (the command's process; a thread with the event loop)
app.py        routes; request.py reads bodies, gate.py guards, schemas.py and pages.py document
batching.py   waiting requests become batches
model.py      one model: its process, started again when it dies
process.py    that process as seen from here; wire.py is what is said between the two
worker.py     the process itself: handler_context.py stands in for TorchServe's context
"""
