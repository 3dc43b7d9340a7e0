"""What a session answers to setCompany and subscribe."""

from __future__ import annotations

import msgspec

from notifier.commands import SetCompany, Subscribe
from notifier.delivery.subscription import Subscription
from notifier.errors import Code
from notifier.messages import (
    CompanySet,
    Fault,
    SetCompanyResult,
    Subscribed,
    SubscribeResult,
    at_text,
)


def success(
    command: SetCompany | Subscribe,
    subscription: Subscription,
    recovered: bool | msgspec.UnsetType,
) -> SetCompanyResult | SubscribeResult:
    """The messages after the subscription's position follow."""
    company, position, epoch = subscription.company, subscription.position, subscription.epoch
    at = msgspec.UNSET if subscription.at is None else at_text(subscription.at)
    if isinstance(command, SetCompany):
        data = CompanySet(
            company_id=company, position=position, epoch=epoch, at=at, recovered=recovered
        )
        return SetCompanyResult(success=True, data=data)
    subscribed = Subscribed(
        company_id=company, position=position, epoch=epoch, at=at, recovered=recovered
    )
    return SubscribeResult(success=True, data=subscribed)


def failure(
    command: SetCompany | Subscribe, company: str, code: Code, text: str
) -> SetCompanyResult | SubscribeResult:
    """Nothing has changed."""
    fault = Fault(code=code, message=text)
    if isinstance(command, SetCompany):
        return SetCompanyResult(success=False, error=fault)
    return SubscribeResult(success=False, data=Subscribed(company_id=company), error=fault)
