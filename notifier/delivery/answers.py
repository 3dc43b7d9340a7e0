"""Responses to setCompany, subscribe and unsubscribe."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from notifier.commands import SetCompany, Subscribe
from notifier.delivery.subscription import Subscription
from notifier.errors import Code
from notifier.messages import (
    CompanyOnly,
    CompanySet,
    Fault,
    SetCompanyResult,
    Subscribed,
    SubscribeResult,
    UnsubscribeResult,
    at_text,
)

Data = TypeVar("Data", CompanySet, Subscribed)


def success(
    command: SetCompany | Subscribe,
    subscription: Subscription,
    recovered: bool | msgspec.UnsetType,
) -> SetCompanyResult | SubscribeResult:
    """The messages after the subscription's position follow."""
    if isinstance(command, Subscribe):
        return subscribed(subscription, recovered)
    return SetCompanyResult(success=True, data=_data(CompanySet, subscription, recovered))


def subscribed(subscription: Subscription, recovered: bool | msgspec.UnsetType) -> SubscribeResult:
    """The messages after the subscription's position follow."""
    return SubscribeResult(success=True, data=_data(Subscribed, subscription, recovered))


def _data(
    kind: type[Data], subscription: Subscription, recovered: bool | msgspec.UnsetType
) -> Data:
    return kind(
        company_id=subscription.company,
        position=subscription.position,
        epoch=subscription.epoch,
        at=msgspec.UNSET if subscription.at is None else at_text(subscription.at),
        recovered=recovered,
    )


def failure(
    command: SetCompany | Subscribe, company: str, code: Code, text: str
) -> SetCompanyResult | SubscribeResult:
    """Nothing has changed."""
    fault = Fault(code=code, message=text)
    if isinstance(command, SetCompany):
        return SetCompanyResult(success=False, error=fault)
    return SubscribeResult(success=False, data=Subscribed(company_id=company), error=fault)


def unsubscribed(company: str, *, was_subscribed: bool) -> UnsubscribeResult:
    """Of a company that this session does not follow any more, or did not follow."""
    data = CompanyOnly(company_id=company)
    if was_subscribed:
        return UnsubscribeResult(success=True, data=data)
    fault = Fault(code=Code.NOT_SUBSCRIBED, message="this socket has not subscribed to it")
    return UnsubscribeResult(success=False, data=data, error=fault)
