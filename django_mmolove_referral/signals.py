"""What the app tells the portal. ``sender`` is the model class of the first argument; of a server, ``ServerHealth``.

All but one are news: sent after the commit with ``send_robust``, best effort. :data:`referral_qualified` is the
reward: sent inside the transaction that marks it granted, so that a receiver's own database writes and the mark
stand or fall together; an exception leaves the reward due, to be tried again.
"""

from django.dispatch import Signal

#: ``referral``: a token was bound to an account.
referral_captured = Signal()

#: ``referral``, ``event``, ``response`` (the stored answer, a dict): MMOLove knows the account.
referral_registered = Signal()

#: ``referral``, ``event``, ``response``: grant the reward now. Once per referral, in the granting transaction.
referral_qualified = Signal()

#: ``referral``, ``event``, ``response``: another referrer already holds this account; there will be no reward.
referral_conflict = Signal()

#: ``referral``, ``event``, ``response`` (the answer to the last event, ``{}`` so far): the portal took it back.
referral_reversed = Signal()

#: ``event``, ``attempt``: MMOLove refuses this event for itself; a person has to look at it.
event_rejected = Signal()

#: ``event``, ``attempt``: the retry schedule came to its end; a person has to look at it.
event_exhausted = Signal()

#: ``server`` (the alias), ``reason``: delivery to this server pauses; dry runs find out when it can go on.
server_paused = Signal()

#: ``server`` (the alias): delivery goes on.
server_resumed = Signal()
