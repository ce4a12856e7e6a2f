"""The stand-in ComfyUI without its HTTP: a queue, jobs that take time and leave a picture, and what is told of them.

Names and the order of the messages are those of ComfyUI 0.33.0. History and queue live as long as the process;
the pictures are on the disk, which outlives it.
"""

import asyncio
import time
import uuid
from collections import deque
from dataclasses import dataclass, field

from comfyweb.demo.comfyui_nodes import Json, Plan
from comfyweb.demo.comfyui_picture import picture
from vm_setup.host.messages import Current, Work
from vm_setup.host.reading import mapping

VERSION = "0.33.0-standin"
_STEPS = 20
_LISTENER_BACKLOG = 1000
_KEPT = 200


def _milliseconds() -> int:
    return int(time.time() * 1000)


class Disk:
    """The files of a machine, in memory: the newest 200 by their kind (`output`, `temp`, `input`), folder and name."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str, str], bytes] = {}
        self._count = 0

    def save(self, kind: str, folder: str, name: str, content: bytes) -> None:
        """Keep a file, and let go of the oldest when there are too many."""
        self._files[kind, folder, name] = content
        while len(self._files) > _KEPT:
            del self._files[next(iter(self._files))]

    def load(self, kind: str, folder: str, name: str) -> bytes | None:
        """Return a file, or None when there is none of that name."""
        return self._files.get((kind, folder, name))

    def next_name(self, prefix: str) -> str:
        """Return a name that no picture has had."""
        self._count += 1
        return f"{prefix}_{self._count:05}_.png"


@dataclass(eq=False, slots=True, kw_only=True)
class Job:
    """One prompt on its way: `pending`, `in_progress`, `completed`, `failed` (for one that was interrupted too)."""

    id: str
    number: float
    plan: Plan
    extra: Json
    client: str
    seconds: float
    state: str = "pending"
    created: int = field(default_factory=_milliseconds)
    started: int | None = None
    ended: int | None = None
    node: str = ""
    percent: float = 0.0
    outputs: Json = field(default_factory=dict[str, object])
    messages: list[tuple[str, Json]] = field(default_factory=list[tuple[str, Json]])

    def row(self) -> list[object]:
        """Return it as `/queue` and `/history` show it."""
        return [self.number, self.id, self.plan.prompt, self.extra, list(self.plan.outputs)]


@dataclass(eq=False, slots=True)
class Listener:
    """A client's websocket; messages wait in `inbox`, and a client that doesn't read them misses the newest."""

    sid: str
    inbox: asyncio.Queue[Json] = field(default_factory=lambda: asyncio.Queue[Json](_LISTENER_BACKLOG))


class ComfyUI:
    """One process of it. `job_seconds` is how long a job takes that doesn't say."""

    def __init__(self, disk: Disk, *, job_seconds: float) -> None:
        self.disk = disk
        self._job_seconds = job_seconds
        self._pending: deque[Job] = deque()
        self._running: Job | None = None
        self._worker: asyncio.Task[None] | None = None
        self._done: dict[str, Job] = {}
        self._listeners: set[Listener] = set()
        self._wake = asyncio.Event()
        self._number = 0
        self.ready = False

    def submit(self, plan: Plan, *, prompt_id: str = "", client: str = "", extra: Json | None = None) -> Job:
        """Put a prompt at the end of the queue."""
        seconds = self._job_seconds if plan.seconds is None else plan.seconds
        job = Job(
            id=prompt_id or str(uuid.uuid4()),
            number=self._number,
            plan=plan,
            extra=extra or {},
            client=client,
            seconds=seconds,
        )
        self._number += 1
        self._pending.append(job)
        self._wake.set()
        self._tell_status()
        return job

    def running(self) -> list[Job]:
        """Return the job that runs, if any."""
        return [self._running] if self._running else []

    def pending(self) -> list[Job]:
        """Return the jobs that wait, the next one first."""
        return list(self._pending)

    def done(self) -> list[Job]:
        """Return the jobs that have ended, the newest last."""
        return list(self._done.values())

    def find(self, prompt_id: str) -> Job | None:
        """Return a job whatever its state."""
        return next((job for job in [*self.running(), *self._pending, *self.done()] if job.id == prompt_id), None)

    def drop(self, prompt_ids: set[str] | None) -> None:
        """Take those jobs out of the queue before they run; all of them for None."""
        self._pending = deque(job for job in self._pending if prompt_ids is not None and job.id not in prompt_ids)
        self._tell_status()

    def forget(self, prompt_ids: set[str] | None) -> None:
        """Take those jobs out of the history; all of them for None."""
        self._done = {key: job for key, job in self._done.items() if prompt_ids is not None and key not in prompt_ids}

    def interrupt(self) -> None:
        """End the job that runs."""
        if self._worker is not None:
            self._worker.cancel()

    def work(self) -> Work:
        """Return what the host wants to know."""
        job = self._running
        current = Current(prompt_id=job.id, node=job.node, percent=round(job.percent, 1)) if job else None
        if not self.ready:
            return Work()
        return Work(
            ready=True, version=VERSION, running=int(job is not None), pending=len(self._pending), current=current
        )

    def listen(self, sid: str) -> Listener:
        """Return a new listener, which is told the state of the queue first."""
        listener = Listener(sid or uuid.uuid4().hex)
        self._listeners.add(listener)
        listener.inbox.put_nowait(_message("status", {"status": self._status(), "sid": listener.sid}))
        listener.inbox.put_nowait(_message("feature_flags", features()))
        return listener

    def unlisten(self, listener: Listener) -> None:
        """Forget a listener."""
        self._listeners.discard(listener)

    async def run(self) -> None:
        """Do the jobs one after the other, until cancelled."""
        self.ready = True
        try:
            while True:
                while self._pending:
                    await self._do(self._pending.popleft())
                self._wake.clear()
                await self._wake.wait()
        finally:
            if self._worker is not None:
                self._worker.cancel()

    async def _do(self, job: Job) -> None:
        self._running = job
        self._worker = asyncio.create_task(self._execute(job))
        await asyncio.wait({self._worker})
        if self._worker.cancelled():
            job.state = "failed"
            name = str(job.plan.node(job.node).get("class_type"))
            self._log(job, "execution_interrupted", {"node_id": job.node, "node_type": name, "executed": []})
        else:
            self._worker.result()
        job.ended = _milliseconds()
        self._running, self._worker = None, None
        self._done[job.id] = job
        while len(self._done) > _KEPT:
            del self._done[next(iter(self._done))]
        self._tell_status()
        self._tell(job, "executing", {"node": None, "prompt_id": job.id})

    async def _execute(self, job: Job) -> None:
        job.state, job.started = "in_progress", _milliseconds()
        self._log(job, "execution_start", {})
        self._log(job, "execution_cached", {"nodes": []})
        workers = [node_id for node_id in job.plan.order if job.plan.kind(node_id).works] or list(job.plan.order[:1])
        total = len(job.plan.order)
        for index, node_id in enumerate(job.plan.order):
            job.node = node_id
            steps = _STEPS if node_id in workers else 1
            self._progress(job, 0, steps)
            self._tell(job, "executing", {"node": node_id, "display_node": node_id, "prompt_id": job.id})
            for step in range(1, steps + 1):
                await asyncio.sleep(job.seconds / len(workers) / steps if node_id in workers else 0)
                job.percent = 100 * (index + step / steps) / total
                self._progress(job, step, steps)
            if job.plan.kind(node_id).saves:
                await self._save(job, node_id)
        job.state = "completed"
        self._log(job, "execution_success", {})

    async def _save(self, job: Job, node_id: str) -> None:
        prefix = str((mapping(job.plan.node(node_id).get("inputs")) or {}).get("filename_prefix", "ComfyUI"))
        folder, _, name = "".join(c for c in prefix[:80] if c.isalnum() or c in "-_/").strip("/").rpartition("/")
        kind = job.plan.kind(node_id).saves
        filename = self.disk.next_name(name or "ComfyUI")
        self.disk.save(kind, folder, filename, await asyncio.to_thread(picture, job.plan.seed))
        output: Json = {"images": [{"filename": filename, "subfolder": folder, "type": kind}]}
        job.outputs[node_id] = output
        told: Json = {"node": node_id, "display_node": node_id, "output": output, "prompt_id": job.id}
        self._tell(job, "executed", told)

    def _progress(self, job: Job, value: int, most: int) -> None:
        state = "finished" if value == most else "running"
        node: Json = {
            "value": float(value),
            "max": float(most),
            "state": state,
            "node_id": job.node,
            "prompt_id": job.id,
            "display_node_id": job.node,
            "parent_node_id": None,
            "real_node_id": job.node,
        }
        self._tell(job, "progress_state", {"prompt_id": job.id, "nodes": {job.node: node}})
        if most > 1 and value:
            self._tell(job, "progress", {"value": value, "max": most, "prompt_id": job.id, "node": job.node})

    def _log(self, job: Job, kind: str, data: Json) -> None:
        """Tell the job's client, and keep it for the history."""
        full = {**data, "prompt_id": job.id, "timestamp": _milliseconds()}
        job.messages.append((kind, full))
        self._tell(job, kind, full)

    def _tell(self, job: Job, kind: str, data: Json) -> None:
        self._send(_message(kind, data), job.client)

    def _tell_status(self) -> None:
        self._send(_message("status", {"status": self._status()}), None)

    def _status(self) -> Json:
        return {"exec_info": {"queue_remaining": len(self._pending) + len(self.running())}}

    def _send(self, message: Json, sid: str | None) -> None:
        for listener in self._listeners:
            if sid in (None, listener.sid) and not listener.inbox.full():
                listener.inbox.put_nowait(message)


def features() -> Json:
    """Return what the server can do."""
    return {"supports_preview_metadata": True, "max_upload_size": 104857600}


def _message(kind: str, data: Json) -> Json:
    return {"type": kind, "data": data}
