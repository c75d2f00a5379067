"""The service notifier: what it listens to, and what it does on each message."""

from dataclasses import replace
from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path

from services.notifier import api, audit, handlers, invariants, read_back, repair, sender, store
from services.notifier.domain import Policy
from services.notifier.handlers import DigestDue, MailFailed, MailSent, State
from shared.contracts.notifier import NOTICES_EVENTS, NoticeFailed, NoticeKind, NoticeSent
from shared.contracts.orders import (
    ORDERS_EVENTS,
    LineAllocated,
    LineBackordered,
    LineCancelled,
    LineEvent,
    LinePromised,
    LineShipped,
    OrderAccepted,
)
from shared.runtime import run
from shared.service import Repair, Route, Service
from shared.settings import Settings


def _order(message: OrderAccepted | LineEvent | NoticeSent | NoticeFailed) -> str:
    return f"order:{message.order}"


def _mail(message: MailSent | MailFailed) -> str:
    return f"mail:{message.order}/{message.number}"


def service(settings: Settings) -> Service[State]:
    """The service under these settings: digest window, and the domain that mails come from."""
    policy = Policy(timedelta(minutes=settings.digest_minutes), parseaddr(settings.mail_from)[1].rpartition("@")[2])
    notifier = Service(
        name="notifier",
        topics=(ORDERS_EVENTS,),
        routes={
            OrderAccepted: Route(handlers.order_accepted, _order),
            LineBackordered: Route(handlers.line_event(policy, NoticeKind.BACKORDERED), _order),
            LinePromised: Route(handlers.line_event(policy, NoticeKind.BACKORDERED), _order),
            LineAllocated: Route(handlers.line_event(policy, NoticeKind.ALLOCATED), _order),
            LineShipped: Route(handlers.line_event(policy, NoticeKind.SHIPPED), _order),
            LineCancelled: Route(handlers.line_event(policy, NoticeKind.CANCELLED), _order),
            DigestDue: Route(handlers.digest_due(policy), lambda timer: f"order:{timer.key}"),
            MailSent: Route(handlers.mail_sent, _mail),
            MailFailed: Route(handlers.mail_failed, _mail),
            NoticeSent: Route(read_back.told(policy), _order),
            NoticeFailed: Route(read_back.told(policy), _order),
            Repair: Route(repair.repair, lambda message: message.aggregate),
        },
        load=store.load,
        save=store.save,
        checks=invariants.CHECKS,
        watched=audit.WATCHED,
        migrations=Path(__file__).parent / "migrations",
        api=api.router,
        background=(sender.send_mails,),
    )
    # What was told first: the news behind it, read afterwards as ever, is known to have been told.
    return replace(notifier, read_back=replace(notifier, topics=(NOTICES_EVENTS, *notifier.topics), checks=invariants.WHILE_READING_BACK))


if __name__ == "__main__":
    run(service)
