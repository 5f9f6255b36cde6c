"""From the outbox to MMOLove and back: claim, send, settle, grant. ``drain`` is the engine."""
