"""What people read on their terminals, in English and Chinese. It writes to none."""

from __future__ import annotations

import math
import time
from datetime import datetime

from .plan import Close, Warn


def words_for(action: Warn | Close, now: datetime) -> tuple[str, str]:
    """Return the English and the Chinese line."""
    match action:
        case Warn():
            ends = local_time(action.ends, now)
            return (
                f"your reservation here ends at {ends}, in {action.minutes} min. "
                "All your processes here end with it: save your work.",
                f"您在本机的预约将于 {ends} 结束（还剩 {action.minutes} 分钟），"
                "届时您在本机的所有进程都会被终止，请及时保存。",
            )
        case Close(seconds=0):
            return (
                "your reservation here has ended. All your processes here end now.",
                "您在本机的预约已结束，您的所有进程即将被终止。",
            )
        case Close():
            seconds = math.ceil(action.seconds)
            return (
                "you have no running reservation here. "
                f"All your processes here end in {seconds} s: save your work.",
                f"您在本机没有有效的预约，{seconds} 秒后您的所有进程将被终止，请立即保存。",
            )


def words_for_cards(cards: str) -> tuple[str, str]:
    """Return the lines for who has cards open that are not the user's any more."""
    return (
        f"your reservation of {cards} is over: your processes that still use it end now.",
        f"您对 {cards} 的预约已结束，仍在使用它的进程即将被终止。",
    )


def local_time(when: datetime, now: datetime) -> str:
    """Return the time in the node's time zone, with the date if that is not today's."""
    # The zone may have been set since the agent started.
    time.tzset()
    local = when.astimezone()
    form = "%H:%M" if local.date() == now.astimezone().date() else "%Y-%m-%d %H:%M"
    # A zone's short name is ambiguous: CST is China's and Chicago's.
    offset = local.strftime("%z")
    return f"{local.strftime(form)} (UTC{offset[:3]}:{offset[3:5]})"
