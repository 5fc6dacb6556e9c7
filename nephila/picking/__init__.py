"""Picking: candidates by templates or blobs on each micrograph, then one choice over all of them."""

from nephila.picking.blob import pick_blobs
from nephila.picking.choose import candidates_table, choose_picks
from nephila.picking.local_correlation import pick_by_templates
from nephila.picking.peaks import Picks
from nephila.picking.settings import BlobSettings, ChoiceSettings, PeakSettings, TemplateSettings
from nephila.picking.templates import TemplateSet
from nephila.picking.threshold import ScoreModel, fit_score_mixture

__all__ = [
    "BlobSettings",
    "ChoiceSettings",
    "PeakSettings",
    "Picks",
    "ScoreModel",
    "TemplateSet",
    "TemplateSettings",
    "candidates_table",
    "choose_picks",
    "fit_score_mixture",
    "pick_blobs",
    "pick_by_templates",
]
