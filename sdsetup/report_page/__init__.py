"""The report of a run as one self-contained HTML file: what was planned, what happened, what came out."""

from sdsetup.report_page.record import RunRecord, recording
from sdsetup.report_page.write import Outcome, write

__all__ = ["Outcome", "RunRecord", "recording", "write"]
