/* The page's files, embedded by the build (ui/embed.py). */
#ifndef SAC_SERVE_UI_H
#define SAC_SERVE_UI_H

#include <stddef.h>

extern const unsigned char sac_ui_index_html[], sac_ui_app_js[], sac_ui_app_css[];
extern const size_t sac_ui_index_html_size, sac_ui_app_js_size, sac_ui_app_css_size;

#endif
