# The first reconstruction: half volumes by defocus group, merged over groups.
RECONSTRUCTION_RESULTS = [
    *THRESHOLD_RESULTS,
    "results/reconstruction/vol01.mrc",
    "results/reconstruction/resolution.star",
    "results/reconstruction/volfq01.mrc",
    "results/reconstruction/figures/slices.png",
    "results/reconstruction/figures/plotres.png",
]


rule recon:
    input:
        table=kept_of_group,
        stack="results/alignment/group_{group}/data.mrcs",
    output:
        half1=kept_for_reruns("results/reconstruction/group_{group}/vol01_sub1.mrc"),
        half2=kept_for_reruns("results/reconstruction/group_{group}/vol01_sub2.mrc"),
        fsc="results/reconstruction/group_{group}/fscdoc.star",
        sums=kept_for_reruns("results/reconstruction/group_{group}/sums.npz"),
    log:
        "logs/recon/{group}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("recon"),
        runtime=minutes("recon"),
    params:
        reconstruction=PROJECT.reconstruction_settings,
        optics=section("optics"),
        particle=section("particle"),
        pixel_size=CONFIG.pixel_size,
        box=CONFIG.box,
        seed=CONFIG.project.seed,
        code=code("recon"),
    message:
        "Reconstruct both halves of group {wildcards.group}"
    script:
        "../scripts/recon.py"


rule merge_recon:
    input:
        sums=by_group("results/reconstruction/group_{group}/sums.npz"),
        fsc=by_group("results/reconstruction/group_{group}/fscdoc.star"),
    output:
        volume="results/reconstruction/vol01.mrc",
        half1="results/reconstruction/vol01_half1.mrc",
        half2="results/reconstruction/vol01_half2.mrc",
        fsc="results/reconstruction/combires.star",
        resolution="results/reconstruction/resolution.star",
    log:
        "logs/merge_recon.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("merge_recon"),
        runtime=minutes("merge_recon"),
    params:
        reconstruction=PROJECT.reconstruction_settings,
        particle=section("particle"),
        groups=lambda wc: [g.number for g in groups()],
        pixel_size=CONFIG.pixel_size,
        box=CONFIG.box,
        seed=CONFIG.project.seed,
        code=code("merge_recon"),
    message:
        "Merge the groups' volumes (Wiener)"
    script:
        "../scripts/merge_recon.py"


rule filt:
    input:
        volume="results/reconstruction/vol01.mrc",
        resolution="results/reconstruction/resolution.star",
    output:
        "results/reconstruction/volfq01.mrc",
    log:
        "logs/filt.log",
    conda:
        ENVIRONMENT
    params:
        below=CONFIG.reconstruction.filter_pass,
        above=CONFIG.reconstruction.filter_stop,
        code=code("filt"),
    message:
        "Filter the first volume at its resolution"
    script:
        "../scripts/filt.py"


rule slices:
    input:
        by_group("results/reconstruction/group_{group}/vol01_sub1.mrc"),
    output:
        stack="results/reconstruction/central_slices.mrcs",
        figure=report(
            "results/reconstruction/figures/slices.png", caption="captions/slices.rst", category="First reconstruction"
        ),
    log:
        "logs/slices.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("slices"),
        runtime=minutes("slices"),
    params:
        groups=lambda wc: [g.number for g in groups()],
        code=code("slices"),
    message:
        "Central slices of the groups' volumes"
    script:
        "../scripts/slices.py"


rule plotres:
    input:
        groups=by_group("results/reconstruction/group_{group}/fscdoc.star"),
        overall="results/reconstruction/combires.star",
    output:
        report(
            "results/reconstruction/figures/plotres.png",
            caption="captions/plotres.rst",
            category="First reconstruction",
        ),
    log:
        "logs/plotres.log",
    conda:
        ENVIRONMENT
    params:
        groups=lambda wc: [g.number for g in groups()],
        pixel_size=CONFIG.pixel_size,
        box=CONFIG.box,
        code=code("plotres"),
    message:
        "Draw the FSC curves of the groups"
    script:
        "../scripts/plotres.py"
