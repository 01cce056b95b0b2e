"""The look of the page as a Gradio theme: ink on paper, system fonts, one quiet accent."""

from __future__ import annotations

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


def theme() -> gr.themes.Base:
    """The arena's theme; a plain object, so that nothing is fetched from anywhere."""
    base = gr.themes.Base(
        primary_hue=colors.teal, secondary_hue=colors.teal, neutral_hue=colors.stone, text_size=sizes.text_md,
        spacing_size=sizes.spacing_sm, radius_size=sizes.radius_md, font=SANS, font_mono=MONO,
    )  # fmt: skip
    return base.set(
        body_background_fill="#f6f5f2",
        body_background_fill_dark="#131211",
        body_text_color="#1c1917",
        body_text_color_dark="#ece9e4",
        body_text_color_subdued="#6b645d",
        body_text_color_subdued_dark="#a29a91",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1b1a18",
        background_fill_secondary="#faf9f7",
        background_fill_secondary_dark="#211f1d",
        border_color_primary="#e3dfd9",
        border_color_primary_dark="#33302c",
        border_color_accent="#0f766e",
        border_color_accent_dark="#2dd4bf",
        color_accent_soft="#e6f4f1",
        color_accent_soft_dark="#10312d",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_padding="0px",
        block_label_text_size="12px",
        block_title_text_size="12px",
        block_title_text_weight="500",
        block_info_text_size="11px",
        layout_gap="8px",
        form_gap_width="0px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#211f1d",
        input_border_color="#e3dfd9",
        input_border_color_dark="#3a3632",
        input_border_color_focus="#0f766e",
        input_border_color_focus_dark="#2dd4bf",
        input_border_width="1px",
        input_padding="6px 8px",
        input_radius="8px",
        input_shadow="none",
        input_shadow_focus="none",
        input_text_size="13px",
        slider_color="#0f766e",
        slider_color_dark="#2dd4bf",
        checkbox_background_color_selected="#0f766e",
        checkbox_background_color_selected_dark="#0d9488",
        checkbox_border_color_selected="#0f766e",
        checkbox_border_color_selected_dark="#0d9488",
        button_primary_background_fill="#1c1917",
        button_primary_background_fill_hover="#3a3531",
        button_primary_background_fill_dark="#ece9e4",
        button_primary_background_fill_hover_dark="#ffffff",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#1c1917",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover="#eceae5",
        button_secondary_background_fill_hover_dark="#2b2825",
        button_secondary_text_color="#3f3a35",
        button_secondary_text_color_dark="#d9d4cd",
        button_secondary_border_color="#e3dfd9",
        button_secondary_border_color_dark="#3a3632",
        button_border_width="1px",
        button_small_padding="4px 10px",
        button_small_text_size="13px",
        button_small_text_weight="500",
        button_transition="background 0.12s ease",
        link_text_color="#0f766e",
        link_text_color_dark="#5eead4",
    )
