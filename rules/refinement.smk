# Refinement: per iteration one job for each chunk of each half, and one that merges them. Iteration 00 is the start.
REFINEMENT_RESULTS = [
    *RECONSTRUCTION_RESULTS,
    *expand(
        "results/refinement/{name}",
        name=[
            "particles.star",
            "map.mrc",
            "map_filtered.mrc",
            "half1.mrc",
            "half2.mrc",
            "fsc.star",
            "iterations.star",
            "checks.star",
        ],
    ),
    *expand(
        "results/refinement/figures/{name}.png",
        name=[
            "fsc",
            "fsc_by_iteration",
            "resolution",
            "angdisp",
            "angdiff",
            "map_slices",
            "map_projections",
            "map_views",
        ],
    ),
]


# the mask with which the map is judged: the one given, or the automatic one of the final volumes; none: a sphere
RESULT_MASK = [PROJECT.result_settings["mask_file"]] if PROJECT.result_settings["mask_file"] else []


def previous(pattern):
    """Input function: `pattern` with {iter} as the iteration before the job's."""
    return lambda wc: pattern.format(**{**dict(wc.items()), "iter": f"{int(wc.iter) - 1:02d}"})


def previous_particles(wildcards):
    """The chunk's table of the iteration before; the first iteration cuts its chunk from the whole table."""
    if wildcards.iter == "01":
        return "results/refinement/iter_00/particles.star"
    return previous("results/refinement/iter_{iter}/half{half}_{chunk}.star")(wildcards)


def previous_reference(wildcards):
    """The half's own reference; where halves are shared, the merged one; sharpened by `enhance` where the iteration asks."""
    name = "enhanced" if PROJECT.enhances(int(wildcards.iter)) else "reference"
    return previous(f"results/refinement/iter_{{iter}}/{name}_half{{half}}.mrc")(wildcards)


rule prepare:
    input:
        groups=kept_of_groups,
        half1="results/reconstruction/vol01_half1.mrc",
        half2="results/reconstruction/vol01_half2.mrc",
    output:
        particles="results/refinement/iter_00/particles.star",
        half1=kept_for_reruns("results/refinement/iter_00/reference_half1.mrc"),
        half2=kept_for_reruns("results/refinement/iter_00/reference_half2.mrc"),
        model="results/refinement/iter_00/model.star",
    log:
        "logs/prepare.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("prepare"),
        runtime=minutes("prepare"),
    params:
        refinement=PROJECT.start_settings,
        code=code("prepare"),
    message:
        "Sort the particles by group and prepare the starting volumes"
    script:
        "../scripts/prepare.py"


rule grploop:
    input:
        particles=previous_particles,
        reference=previous_reference,
        model=previous("results/refinement/iter_{iter}/model.star"),
        stacks=by_group("results/alignment/group_{group}/data.mrcs"),
        # a job on a cluster knows the chunks only where their number is among its inputs
        counts=lambda wc: checkpoints.merge_coordinates.get().output.counts if wc.iter == "01" else [],
    output:
        particles="results/refinement/iter_{iter}/half{half}_{chunk}.star",
        sums=passing("results/refinement/iter_{iter}/half{half}_{chunk}_sums.npz"),
    log:
        "logs/grploop/{iter}_half{half}_{chunk}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("grploop"),
        runtime=minutes("grploop"),
    params:
        chunks=lambda wc: len(chunks()) if wc.iter == "01" else None,
        settings=lambda wc: PROJECT.iteration_settings(int(wc.iter)),
        optics=section("optics"),
        code=code("grploop"),
    message:
        "Iteration {wildcards.iter}: align and backproject chunk {wildcards.chunk} of half {wildcards.half}"
    script:
        "../scripts/grploop.py"


rule mergegroups:
    input:
        particles=by_chunk("results/refinement/iter_{iter}/half{half}_{chunk}.star"),
        sums=by_chunk("results/refinement/iter_{iter}/half{half}_{chunk}_sums.npz"),
        before=lambda wc: (
            ["results/refinement/iter_00/particles.star"]
            if wc.iter == "01"
            else [
                previous(name)(wc) for name in by_chunk("results/refinement/iter_{{iter}}/half{half}_{chunk}.star")({})
            ]
        ),
        model=previous("results/refinement/iter_{iter}/model.star"),
        reference1=previous("results/refinement/iter_{iter}/reference_half1.mrc"),
        reference2=previous("results/refinement/iter_{iter}/reference_half2.mrc"),
        volume=lambda wc: [] if wc.iter == "01" else previous("results/refinement/iter_{iter}/vol.mrc")(wc),
        mask=lambda wc: PROJECT.mask_files(int(wc.iter)),
    output:
        half1=kept_for_reruns("results/refinement/iter_{iter}/reference_half1.mrc"),
        half2=kept_for_reruns("results/refinement/iter_{iter}/reference_half2.mrc"),
        volume=kept_for_reruns("results/refinement/iter_{iter}/vol.mrc"),
        model="results/refinement/iter_{iter}/model.star",
    log:
        "logs/mergegroups/{iter}.log",
    wildcard_constraints:
        iter=rf"(?!00|{LAST})\d{{2}}" if CONFIG.jobs.lean else r"(?!00)\d{2}",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("mergegroups"),
        runtime=minutes("mergegroups"),
    params:
        settings=lambda wc: PROJECT.iteration_settings(int(wc.iter)),
        code=code("mergegroups"),
    message:
        "Iteration {wildcards.iter}: merge the groups, measure the resolution, decide how to go on"
    script:
        "../scripts/mergegroups.py"


if CONFIG.jobs.lean:

    # the last iteration's volumes stay: a further iteration, and the checks, start from them
    use rule mergegroups as mergegroups_last with:
        output:
            half1="results/refinement/iter_{iter}/reference_half1.mrc",
            half2="results/refinement/iter_{iter}/reference_half2.mrc",
            volume="results/refinement/iter_{iter}/vol.mrc",
            model="results/refinement/iter_{iter}/model.star",
        wildcard_constraints:
            iter=LAST,


rule enhance:
    input:
        volume="results/refinement/{folder}/reference_half{half}.mrc",
        model="results/refinement/{folder}/model.star",
        scattering=[CONFIG.refinement.scattering] if CONFIG.refinement.scattering else [],
    output:
        kept_for_reruns("results/refinement/{folder}/enhanced_half{half}.mrc"),
    log:
        "logs/enhance/{folder}_half{half}.log",
    wildcard_constraints:
        folder=r"iter_\d{2}",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("enhance"),
        runtime=minutes("enhance"),
    params:
        code=code("enhance"),
    message:
        "Match the amplitudes of the reference to the scattering curve"
    script:
        "../scripts/enhance.py"


rule endmerge:
    input:
        particles=f"results/refinement/iter_{LAST}/half{{half}}_{{chunk}}.star",
        stacks=by_group("results/alignment/group_{group}/data.mrcs"),
        model=f"results/refinement/iter_{LAST}/model.star",
    output:
        passing("results/refinement/final/half{half}_{chunk}_sums.npz"),
    log:
        "logs/endmerge/half{half}_{chunk}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("endmerge"),
        runtime=minutes("endmerge"),
    params:
        settings=PROJECT.last_settings,
        optics=section("optics"),
        code=code("endmerge"),
    message:
        "Backproject chunk {wildcards.chunk} of half {wildcards.half} to Nyquist"
    script:
        "../scripts/endmerge.py"


rule endrefine:
    input:
        sums=by_chunk("results/refinement/final/half{half}_{chunk}_sums.npz"),
        particles=by_chunk(f"results/refinement/iter_{LAST}/half{{half}}_{{chunk}}.star"),
        models=expand("results/refinement/iter_{iter}/model.star", iter=["00", *ITERATIONS]),
        mask=PROJECT.mask_files(len(ITERATIONS)),
    output:
        particles="results/refinement/particles.star",
        map="results/refinement/map.mrc",
        filtered="results/refinement/map_filtered.mrc",
        half1="results/refinement/half1.mrc",
        half2="results/refinement/half2.mrc",
        mask=FINAL_MASK,
        fsc="results/refinement/fsc.star",
        iterations="results/refinement/iterations.star",
    log:
        "logs/endrefine.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("endrefine"),
        runtime=minutes("endrefine"),
    params:
        settings=PROJECT.last_settings,
        final=PROJECT.final_settings,
        optics=section("optics"),
        name=CONFIG.project.name,
        original_pixel_size=CONFIG.input.pixel_size,
        code=code("endrefine"),
    message:
        "Final half maps, map, mask, FSC and particle table"
    script:
        "../scripts/endrefine.py"


rule checkrefine:
    input:
        particles=by_chunk(f"results/refinement/iter_{LAST}/half{{half}}_{{chunk}}.star"),
        stacks=by_group("results/alignment/group_{group}/data.mrcs"),
        model=f"results/refinement/iter_{LAST}/model.star",
        reference1=f"results/refinement/iter_{LAST}/reference_half1.mrc",
        reference2=f"results/refinement/iter_{LAST}/reference_half2.mrc",
        map="results/refinement/map_filtered.mrc",
        given="results/project/reference_volume.mrc",
        mask=RESULT_MASK,
    output:
        "results/refinement/checks.star",
    log:
        "logs/checkrefine.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("checkrefine"),
        runtime=minutes("checkrefine"),
    params:
        settings=PROJECT.result_settings,
        optics=section("optics"),
        code=code("checkrefine"),
    message:
        "Check poses, point group, hand and size of the map"
    script:
        "../scripts/checkrefine.py"


rule plotrefres:
    input:
        iterations="results/refinement/iterations.star",
        models=expand("results/refinement/iter_{iter}/model.star", iter=ITERATIONS),
        fsc="results/refinement/fsc.star",
    output:
        fsc=report("results/refinement/figures/fsc.png", caption="captions/fsc.rst", category="Refinement"),
        iterations=report(
            "results/refinement/figures/fsc_by_iteration.png",
            caption="captions/fsc_by_iteration.rst",
            category="Refinement",
        ),
        resolution=report(
            "results/refinement/figures/resolution.png", caption="captions/resolution.rst", category="Refinement"
        ),
    log:
        "logs/plotrefres.log",
    conda:
        ENVIRONMENT
    params:
        pixel_size=CONFIG.pixel_size,
        box=CONFIG.box,
        code=code("plotrefres"),
    message:
        "Draw the resolution by iteration and by group"
    script:
        "../scripts/plotrefres.py"


rule angdisp:
    input:
        "results/refinement/particles.star",
    output:
        report("results/refinement/figures/angdisp.png", caption="captions/angdisp.rst", category="Refinement"),
    log:
        "logs/angdisp.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("angdisp"),
        runtime=minutes("angdisp"),
    params:
        symmetry=CONFIG.particle.symmetry,
        code=code("angdisp"),
    message:
        "Draw the refined directions"
    script:
        "../scripts/angdisp.py"


rule angdiff:
    input:
        first="results/refinement/iter_00/particles.star",
        chunks=lambda wc: [
            path
            for i in ITERATIONS
            for path in expand(
                "results/refinement/iter_{iter}/half{half}_{chunk}.star", iter=i, half=[1, 2], chunk=chunks()
            )
        ],
    output:
        report("results/refinement/figures/angdiff.png", caption="captions/angdiff.rst", category="Refinement"),
    log:
        "logs/angdiff.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("angdiff"),
        runtime=minutes("angdiff"),
    params:
        symmetry=PROJECT.last_settings["symmetry"],
        iterations=len(ITERATIONS),
        moved_by=PROJECT.moved_by_deg,
        code=code("angdiff"),
    message:
        "Draw how far directions moved"
    script:
        "../scripts/angdiff.py"


rule plotmap:
    input:
        "results/refinement/map_filtered.mrc",
    output:
        slices=report(
            "results/refinement/figures/map_slices.png", caption="captions/map_slices.rst", category="Refinement"
        ),
        projections=report(
            "results/refinement/figures/map_projections.png",
            caption="captions/map_projections.rst",
            category="Refinement",
        ),
        views=report(
            "results/refinement/figures/map_views.png", caption="captions/map_views.rst", category="Refinement"
        ),
    log:
        "logs/plotmap.log",
    conda:
        ENVIRONMENT
    params:
        diameter=CONFIG.particle.diameter,
        code=code("plotmap"),
    message:
        "Draw slices, projections and surface of the map"
    script:
        "../scripts/plotmap.py"
