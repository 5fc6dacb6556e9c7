# Averages by view, correlation thresholds, distribution of views.
ALIGNED = "results/alignment/group_{group}/align.star"
THRESHOLD_RESULTS = [
    "results/averages/how_many.star",
    "results/averages/averages.star",
    "results/averages/figures/cchistogram.png",
    "results/averages/thresh.star",
    "results/averages/sel_group_cclim.star",
    "results/averages/figures/plotrefviews.png",
]


def threshold_edit(wildcards):
    """The group's threshold in edits/thresh.star where it differs from the proposal, else None: a param, so that an edit reruns
    exactly the groups that it changes."""
    path = next(iter(edit("thresh")), None)
    aligned = ALIGNED.format(group=wildcards.group)
    return (
        checked(plan.edited_threshold)(path, int(wildcards.group), aligned, CONFIG.thresholds.share_rejected)
        if path
        else None
    )


def kept_by_hand(wildcards):
    """The group's particles that edits/good.star keeps: they stay where they are doubted, too."""
    path = next(iter(edit("good")), None)
    return checked(plan.kept_by_hand)(path, group(wildcards).micrographs) if path else []


rule select:
    input:
        aligned=by_group(ALIGNED),
        directions="results/alignment/refangles.star",
    output:
        how_many="results/averages/how_many.star",
        views="results/averages/ref_sel.star",
    log:
        "logs/select.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("select"),
        runtime=minutes("select"),
    params:
        symmetry=CONFIG.particle.symmetry,
        code=code("select"),
    message:
        "Count the particles on each reference view"
    script:
        "../scripts/select.py"


rule average:
    input:
        stack="results/alignment/group_{group}/data.mrcs",
        table=ALIGNED,
        directions="results/alignment/refangles.star",
        projections="results/alignment/projections.mrcs",
    output:
        averages=kept_for_reruns("results/averages/group_{group}/avg.mrcs"),
        variances=kept_for_reruns("results/averages/group_{group}/var.mrcs"),
        doubts="results/averages/group_{group}/doubts.star",
    log:
        "logs/average/{group}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("average"),
        runtime=minutes("average"),
    params:
        symmetry=CONFIG.particle.symmetry,
        pixel_size=CONFIG.pixel_size,
        box=CONFIG.box,
        diameter=CONFIG.particle.diameter,
        optics=section("optics"),
        doubt_sigma=CONFIG.thresholds.doubt_sigma,
        shift_range=CONFIG.alignment.shift_range,
        code=code("average"),
    message:
        "Average the views of group {wildcards.group}, and doubt particles unlike them"
    script:
        "../scripts/average.py"


rule average_all:
    input:
        averages=by_group("results/averages/group_{group}/avg.mrcs"),
        variances=by_group("results/averages/group_{group}/var.mrcs"),
        how_many="results/averages/how_many.star",
        projections="results/alignment/projections.mrcs",
    output:
        table="results/averages/averages.star",
        stack="results/averages/averages.mrcs",
        variances="results/averages/variances.mrcs",
        figure=report(
            "results/averages/figures/averages.png", caption="captions/averages.rst", category="First alignment"
        ),
        variance_figure=report(
            "results/averages/figures/variances.png", caption="captions/variances.rst", category="First alignment"
        ),
    log:
        "logs/average_all.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("average_all"),
        runtime=minutes("average_all"),
    params:
        groups=lambda wc: [g.number for g in groups()],
        code=code("average_all"),
    message:
        "Average the views over all groups and compare them with the reference"
    script:
        "../scripts/average_all.py"


rule cchistogram:
    input:
        aligned=by_group(ALIGNED),
        thresholds="results/averages/thresh.star",
    output:
        table="results/averages/cchistogram.star",
        figure=report(
            "results/averages/figures/cchistogram.png", caption="captions/cchistogram.rst", category="First alignment"
        ),
    log:
        "logs/cchistogram.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("cchistogram"),
        runtime=minutes("cchistogram"),
    params:
        code=code("cchistogram"),
    message:
        "Histograms of the correlation by group"
    script:
        "../scripts/cchistogram.py"


rule ccthresh:
    input:
        aligned=by_group(ALIGNED),
    output:
        "results/averages/thresh.proposed.star",
    log:
        "logs/ccthresh.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("ccthresh"),
        runtime=minutes("ccthresh"),
    params:
        share=CONFIG.thresholds.share_rejected,
        code=code("ccthresh"),
    message:
        "Propose a correlation threshold for each group"
    script:
        "../scripts/ccthresh.py"


rule thresh:
    input:
        proposed="results/averages/thresh.proposed.star",
        edit=edit("thresh"),
        aligned=by_group(ALIGNED),
    output:
        "results/averages/thresh.star",
    log:
        "logs/thresh.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("thresh"),
        runtime=minutes("thresh"),
    params:
        edit=edit_content("thresh"),
        code=code("thresh"),
    message:
        "Thresholds: the proposal, or edits/thresh.star"
    script:
        "../scripts/thresh.py"


rule dftotals:
    input:
        # not the table of all groups' thresholds, for the same reason as in win2stk
        table=ALIGNED,
        doubts="results/averages/group_{group}/doubts.star",
    output:
        "results/averages/group_{group}/dftotals.star",
    log:
        "logs/dftotals/{group}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("dftotals"),
        runtime=minutes("dftotals"),
    params:
        share=CONFIG.thresholds.share_rejected,
        threshold=threshold_edit,
        by_hand=kept_by_hand,
        code=code("dftotals"),
    message:
        "Keep the particles of group {wildcards.group} above its threshold that are not doubted"
    script:
        "../scripts/dftotals.py"


rule bestim:
    input:
        table="results/averages/group_{group}/dftotals.star",
        directions="results/alignment/refangles.star",
    output:
        "results/averages/group_{group}/bestim.star",
    log:
        "logs/bestim/{group}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("bestim"),
        runtime=minutes("bestim"),
    params:
        at_most=lambda wc: caps()[wc.group],
        symmetry=CONFIG.particle.symmetry,
        code=code("bestim"),
    message:
        "Cap the particles per view of group {wildcards.group}"
    script:
        "../scripts/bestim.py"


rule sel_group_cclim:
    input:
        kept=kept_of_groups,
        groups="results/ctf/sel_group.star",
        thresholds="results/averages/thresh.star",
    output:
        "results/averages/sel_group_cclim.star",
    log:
        "logs/sel_group_cclim.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("sel_group_cclim"),
        runtime=minutes("sel_group_cclim"),
    params:
        caps=lambda wc: [cap or 0 for cap in caps().values()],
        code=code("sel_group_cclim"),
    message:
        "Count the particles kept by group"
    script:
        "../scripts/sel_group_cclim.py"


rule plotrefviews:
    input:
        how_many="results/averages/how_many.star",
    output:
        overall=report(
            "results/averages/figures/plotrefviews.png",
            caption="captions/plotrefviews.rst",
            category="First alignment",
        ),
        groups=report(
            "results/averages/figures/plotrefviews_groups.png",
            caption="captions/plotrefviews_groups.rst",
            category="First alignment",
        ),
    log:
        "logs/plotrefviews.log",
    conda:
        ENVIRONMENT
    params:
        code=code("plotrefviews"),
    message:
        "Draw the distribution of views"
    script:
        "../scripts/plotrefviews.py"
