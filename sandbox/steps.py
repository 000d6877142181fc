"""The durable steps of both programs, by name: where a process may be made to die (`sandbox/die.py`). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

SIDES = ("before", "after")


@dataclass(frozen=True)
class Step:
    """A function whose calls are a durable step, or part of one, or tell another program of it."""

    module: str
    name: str  # with its class
    text: str = ""  # only calls with this text in an argument
    nth: int = 1  # which call of a process
    rare: bool = False  # not reached by every process that works for a while


AGENT_STEPS: Mapping[str, Step] = {
    "version assembled": Step("edge_agent.download", "Download.assemble"),
    "model saved": Step("edge_agent.models", "ModelFolder.save"),
    "payload renamed": Step("fedward.files", "move_durably", ".payload"),
    "offer renamed": Step("fedward.files", "move_durably", ".offer"),
    "update saved": Step("edge_agent.outbox", "Outbox.save"),
    "progress saved": Step("edge_agent.progress", "ProgressFile.save", nth=2),  # the first is that of the start
    "unfinished forgotten": Step("edge_agent.compute", "Compute.forget_unfinished", nth=2),  # the first begins
    "egress line written": Step("edge_agent.egress_log", "EgressLog.write", nth=5),
    "egress head saved": Step("fedward.files", "move_durably", "head.json", nth=2),
    "offer sent": Step("fedward.mqtt", "MqttLink.publish", "/offer/"),
    "chunk sent": Step("fedward.mqtt", "MqttLink.publish", "/u/", nth=2),
    "update deleted": Step("edge_agent.outbox", "Outbox.delete"),
}

COORDINATOR_STEPS: Mapping[str, Step] = {
    "grant sent": Step("coordinator.publish", "Publisher.grant"),
    "chunk stored": Step("fedward.chunks", "ChunkFile.add", nth=2),
    "chunks synced": Step("fedward.chunks", "ChunkFile.sync", nth=2),  # the first finds nothing new
    "messages acknowledged": Step("coordinator.service", "Service.acknowledge", nth=3),
    "upload finished": Step("fedward.chunks", "ChunkFile.finish"),
    "upload renamed": Step("fedward.chunks", "move_durably"),
    "update in the ledger": Step("coordinator.ledger", "Ledger.add_update"),
    "receipt sent": Step("coordinator.publish", "Publisher.receipt"),
    "delta stored": Step("coordinator.blobs", "BlobFolder.write", nth=3),  # version 0 has a snapshot and a state
    "state stored": Step("coordinator.blobs", "BlobFolder.write", nth=4),
    "version in the ledger": Step("coordinator.ledger", "Ledger.add_version"),
    "version announced": Step("coordinator.publish", "Publisher.announce", nth=2),  # the first is that of the start
    "end in the ledger": Step("coordinator.ledger", "Ledger.wish", rare=True),
}

KEY_STEPS: Mapping[str, Step] = {
    "model key given": Step("coordinator.publish", "Publisher.key", nth=2),
}
"""Of a coordinator whose model is sealed."""

PRUNING_STEPS: Mapping[str, Step] = {
    "floor recorded": Step("coordinator.ledger", "Ledger.raise_floor"),
    "blob pruned": Step("coordinator.retention", "Retention._delete", nth=3),
    "rows pruned": Step("coordinator.ledger", "Ledger.prune"),
}
"""Of `tests.crash.make_versions`: a federation comes to them after many versions only."""

RESTORE_STEPS: Mapping[str, Step] = {
    "ledger copied": Step("coordinator.backup", "write_durably", ".restoring.part/new/ledger.sqlite"),
    "blob copied": Step("coordinator.blobs", "BlobFolder.put", nth=2),
    "epoch begun": Step("coordinator.ledger", "Ledger.begin_epoch"),
    "manifest copied": Step("coordinator.backup", "write_durably", "manifest.json"),
    "all staged": Step("coordinator.backup", "move_durably", ".restoring.part"),
    "old ledger taken out": Step("coordinator.backup", "move_durably", "/old/ledger.sqlite"),
    "old blobs taken out": Step("coordinator.backup", "move_durably", "/old/blobs"),
    "old set aside": Step("coordinator.backup", "move_durably", "replaced-"),
    "new blobs put in": Step("coordinator.backup", "move_durably", "/new/blobs"),
    "new ledger put in": Step("coordinator.backup", "move_durably", "/new/ledger.sqlite"),
    "all in place": Step("coordinator.backup", "move_durably", ".restoring.part", nth=2),
}

BACKUP_STEPS: Mapping[str, Step] = {
    "ledger saved": Step("coordinator.ledger", "Ledger.copy_to"),
    "state saved": Step("coordinator.backup", "_link"),
    "blob saved": Step("coordinator.backup", "_link", nth=3),
    "manifest written": Step("coordinator.backup", "write_durably", "manifest.json"),
    "backup named": Step("coordinator.backup", "move_durably", ".part"),
}

APPLIANCE_STEPS: Mapping[str, Step] = {
    "order written": Step("edge_agent.appliance.journal", "JournalFile.save"),
    "new created": Step("edge_agent.appliance.engine", "Engine.create"),
    "old stopped": Step("edge_agent.appliance.engine", "Engine.stop"),
    "state copied": Step("edge_agent.appliance.snapshots", "Snapshots.take"),
    "new started": Step("edge_agent.appliance.engine", "Engine.start"),
    "end written": Step("edge_agent.appliance.journal", "JournalFile.save", nth=2),
    "old removed": Step("edge_agent.appliance.engine", "Engine.remove"),
    "old copy dropped": Step("edge_agent.appliance.snapshots", "Snapshots.drop"),
}
"""Of an upgrade."""

RETURN_STEPS: Mapping[str, Step] = {
    "given up": Step("edge_agent.appliance.journal", "JournalFile.save", nth=2),
    "new stopped": Step("edge_agent.appliance.engine", "Engine.stop", nth=2),
    "state put back": Step("edge_agent.appliance.engine", "Engine.write_state"),
    "return of the state written": Step("edge_agent.appliance.journal", "JournalFile.save", nth=3),
    "old started": Step("edge_agent.appliance.engine", "Engine.start", nth=2),
    "return written": Step("edge_agent.appliance.journal", "JournalFile.save", nth=4),
    "new removed": Step("edge_agent.appliance.engine", "Engine.remove"),
}
"""Of an upgrade that fails."""
