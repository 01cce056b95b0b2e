"""The look of the page as a Gradio theme: ink on paper, system fonts, one quiet accent."""

from __future__ import annotations

from typing import Final

import gradio as gr
from gradio.themes.utils import colors, sizes

SANS = (
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Helvetica Neue",
    "Noto Sans",
    "sans-serif",
)
MONO = ("ui-monospace", "SFMono-Regular", "Cascadia Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

COLORS: Final = {
    "body_background_fill": ("#f6f5f2", "#131211"),
    "body_text_color": ("#1c1917", "#ece9e4"),
    "body_text_color_subdued": ("#6b645d", "#a29a91"),
    "background_fill_primary": ("#ffffff", "#1b1a18"),
    "background_fill_secondary": ("#faf9f7", "#211f1d"),
    "border_color_primary": ("#e3dfd9", "#33302c"),
    "border_color_accent": ("#0f766e", "#2dd4bf"),
    "color_accent_soft": ("#e6f4f1", "#10312d"),
    "block_background_fill": ("transparent", "transparent"),
    "input_background_fill": ("#ffffff", "#211f1d"),
    "input_border_color": ("#e3dfd9", "#3a3632"),
    "input_border_color_focus": ("#0f766e", "#2dd4bf"),
    "input_placeholder_color": ("#6b645d", "#a29a91"),
    "slider_color": ("#0f766e", "#2dd4bf"),
    "checkbox_background_color_selected": ("#0f766e", "#0d9488"),
    "checkbox_border_color_selected": ("#0f766e", "#0d9488"),
    "button_primary_background_fill": ("#1c1917", "#ece9e4"),
    "button_primary_background_fill_hover": ("#3a3531", "#ffffff"),
    "button_primary_border_color": ("#1c1917", "#ece9e4"),
    "button_primary_border_color_hover": ("#3a3531", "#ffffff"),
    "button_primary_text_color": ("#ffffff", "#1c1917"),
    "button_secondary_background_fill": ("transparent", "transparent"),
    "button_secondary_background_fill_hover": ("#eceae5", "#2b2825"),
    "button_secondary_text_color": ("#3f3a35", "#d9d4cd"),
    "button_secondary_border_color": ("#e3dfd9", "#3a3632"),
    "link_text_color": ("#0f766e", "#5eead4"),
}
"""Each as in light and as in dark."""
SHAPES: Final = {
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_padding": "0px",
    "block_label_text_size": "12px",
    "block_title_text_size": "12px",
    "block_title_text_weight": "500",
    "block_info_text_size": "11px",
    "layout_gap": "8px",
    "form_gap_width": "0px",
    "input_border_width": "1px",
    "input_padding": "6px 8px",
    "input_radius": "8px",
    "input_shadow": "none",
    "input_shadow_focus": "none",
    "input_text_size": "13px",
    "button_border_width": "1px",
    "button_small_padding": "4px 10px",
    "button_small_text_size": "13px",
    "button_small_text_weight": "500",
    "button_transition": "background 0.12s ease",
}


def theme() -> gr.themes.Base:
    """The arena's theme; a plain object, so that nothing is fetched from anywhere."""
    base = gr.themes.Base(
        primary_hue=colors.teal, secondary_hue=colors.teal, neutral_hue=colors.stone, text_size=sizes.text_md,
        spacing_size=sizes.spacing_sm, radius_size=sizes.radius_md, font=SANS, font_mono=MONO,
    )  # fmt: skip
    light = {name: color for name, (color, _) in COLORS.items()}
    dark = {f"{name}_dark": color for name, (_, color) in COLORS.items()}
    return base.set(**SHAPES, **light, **dark)
