#include "model/answer.h"

#include <math.h>
#include <string.h>

void sac_answer_put_json(struct sac_buf *out, const struct sac_model *model,
                         const struct sac_topk_pair *pairs, int count)
{
    sac_buf_puts(out, "[");
    for (int i = 0; i < count; i++) {
        const char *label = sac_model_label(model, pairs[i].index);
        sac_buf_puts(out, i ? ",{\"confidence\":" : "{\"confidence\":");
        if (isfinite(pairs[i].value))
            sac_buf_printf(out, "%.4f", (double)pairs[i].value);
        else
            sac_buf_puts(out, "null"); /* JSON has no other word for it */
        sac_buf_puts(out, ",\"label\":");
        sac_buf_put_json(out, label, strlen(label));
        sac_buf_puts(out, "}");
    }
    sac_buf_puts(out, "]");
}
