# Picking, windows, selection of good particles.
PICK_RESULTS = [*CTF_RESULTS, "results/particles/coordinates.star"]
PARTICLE_RESULTS = [
    *PICK_RESULTS,
    "results/particles/ngood.star",
    "results/particles/percent_selected.star",
    *expand("results/particles/figures/{part}", part=PROJECT.figure_parts),
    *(
        expand("results/particles/flt/winser_{batch}.mrcs", batch=PROJECT.batch_labels)
        if CONFIG.particles.pfilt
        else []
    ),
]
CANDIDATES = expand(
    "results/particles/candidates/{method}_{batch}.star", method=CONFIG.picking.method, batch=PROJECT.batch_labels
)
WINDOW_TABLES = expand("results/particles/win/winser_{batch}.star", batch=PROJECT.batch_labels)


if CONFIG.input.particles:

    checkpoint merge_coordinates:
        input:
            CONFIG.input.particle_tables,
        output:
            table="results/particles/coordinates.star",
            counts="results/particles/picks_by_micrograph.star",
            pictures=directory("results/particles/given"),
        log:
            "logs/merge_coordinates.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("merge_coordinates"),
            runtime=minutes("merge_coordinates"),
        params:
            optics=section("optics"),
            pixel_size=CONFIG.pixel_size,
            box=CONFIG.box,
            diameter=CONFIG.particle.diameter,
            ignore_aberrations=CONFIG.input.ignore_aberrations,
            several=CONFIG.input.optics_groups == "several",
            overfocus=CONFIG.input.overfocus,
            sampling=CONFIG.reference.sampling,
            code=code("import_particles"),
        message:
            "List the particles given"
        script:
            "../scripts/import_particles.py"

    rule extract_windows:
        input:
            coordinates="results/particles/coordinates.star",
            particles=CONFIG.input.particle_tables,
        output:
            stack=kept_for_reruns("results/particles/win/winser_{batch}.mrcs"),
            table="results/particles/win/winser_{batch}.star",
        log:
            "logs/extract_windows/{batch}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("extract_windows"),
            runtime=minutes("extract_windows"),
        params:
            names=lambda wc: PROJECT.names_of(wc.batch),
            box=CONFIG.box,
            pixel_size=CONFIG.pixel_size,
            diameter=CONFIG.particle.diameter,
            seed=CONFIG.project.seed,
            particles=section("particles"),
            input=section("input"),
            optics=section("optics"),
            code=code("import_windows"),
        message:
            "Take the windows of batch {wildcards.batch} from the particles given"
        script:
            "../scripts/import_windows.py"

else:

    rule noise:
        input:
            micrographs=lambda wc: PROJECT.micrographs_of(PROJECT.batch_labels[0])[:3],
        output:
            noise="results/particles/noise.mrc",
            candidates="results/particles/noise_candidates.mrcs",
            table="results/particles/noise_candidates.star",
        log:
            "logs/noise.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("noise"),
            runtime=minutes("noise"),
        params:
            box=CONFIG.cut_box,
            candidate=CONFIG.particles.noise_candidate,
            input=section("input"),
            code=code("noise"),
        message:
            "Find windows without particles"
        script:
            "../scripts/noise.py"

    rule pick:
        input:
            micrographs=lambda wc: PROJECT.micrographs_of(wc.batch),
            defocus=f"results/ctf/power/{CONFIG.ctf.method}_{{batch}}.star",
        output:
            "results/particles/candidates/pick_{batch}.star",
        log:
            "logs/pick/{batch}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("pick"),
            runtime=minutes("pick"),
        params:
            names=lambda wc: PROJECT.names_of(wc.batch),
            diameter=CONFIG.particle.diameter,
            input=section("input"),
            optics=section("optics"),
            picking=section("picking"),
            box_size=CONFIG.box * CONFIG.pixel_size,
            code=code("pick"),
        message:
            "Pick blobs in batch {wildcards.batch}"
        script:
            "../scripts/pick.py"

    rule lfc_pick:
        input:
            micrographs=lambda wc: PROJECT.micrographs_of(wc.batch),
            defocus=f"results/ctf/power/{CONFIG.ctf.method}_{{batch}}.star",
            reference="results/project/reference_volume.mrc",
        output:
            "results/particles/candidates/lfc_pick_{batch}.star",
        log:
            "logs/lfc_pick/{batch}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("lfc_pick"),
            runtime=minutes("lfc_pick"),
        params:
            names=lambda wc: PROJECT.names_of(wc.batch),
            diameter=CONFIG.particle.diameter,
            symmetry=CONFIG.particle.symmetry,
            input=section("input"),
            optics=section("optics"),
            picking=section("picking"),
            box_size=CONFIG.box * CONFIG.pixel_size,
            resolution=CONFIG.reference.resolution,
            code=code("lfc_pick"),
        message:
            "Pick by local correlation with the reference in batch {wildcards.batch}"
        script:
            "../scripts/lfc_pick.py"

    checkpoint merge_coordinates:
        input:
            candidates=CANDIDATES if not CONFIG.input.coordinates else [],
            given=[CONFIG.input.coordinates] if CONFIG.input.coordinates else [],
            list="results/project/micrographs.star",
        output:
            table="results/particles/coordinates.star",
            candidates="results/particles/candidates.star",
            counts="results/particles/picks_by_micrograph.star",
        log:
            "logs/merge_coordinates.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("merge_coordinates"),
            runtime=minutes("merge_coordinates"),
        params:
            picking=section("picking"),
            diameter=CONFIG.particle.diameter,
            input=section("input"),
            code=code("merge_coordinates"),
        message:
            "Choose the threshold for picks over all micrographs"
        script:
            "../scripts/merge_coordinates.py"

    rule extract_windows:
        input:
            coordinates="results/particles/coordinates.star",
            micrographs=lambda wc: PROJECT.micrographs_of(wc.batch),
            noise="results/particles/noise.mrc",
        output:
            stack=kept_for_reruns("results/particles/win/winser_{batch}.mrcs"),
            table="results/particles/win/winser_{batch}.star",
        log:
            "logs/extract_windows/{batch}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("extract_windows"),
            runtime=minutes("extract_windows"),
        params:
            names=lambda wc: PROJECT.names_of(wc.batch),
            box=CONFIG.cut_box,
            new_box=CONFIG.box,
            diameter=CONFIG.particle.diameter,
            seed=CONFIG.project.seed,
            input=section("input"),
            particles=section("particles"),
            code=code("extract_windows"),
        message:
            "Cut the windows of batch {wildcards.batch}"
        script:
            "../scripts/extract_windows.py"


rule picking_figures:
    input:
        coordinates="results/particles/coordinates.star",
        windows=lambda wc: expand("results/particles/win/winser_{batch}.mrcs", batch=PROJECT.figure_parts[wc.part]),
        micrographs=lambda wc: (
            [path for batch in PROJECT.figure_parts[wc.part] for path in PROJECT.micrographs_of(batch)]
            if not CONFIG.input.particles
            else []
        ),
    output:
        directory("results/particles/figures/{part}"),
    log:
        "logs/picking_figures/{part}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("picking_figures"),
        runtime=minutes("picking_figures"),
    params:
        names=lambda wc: (
            [name for batch in PROJECT.figure_parts[wc.part] for name in PROJECT.names_of(batch)]
            if not CONFIG.input.particles
            else []
        ),
        diameter=CONFIG.particle.diameter,
        input=section("input"),
        code=code("picking_figures"),
    message:
        "Draw picks and windows of part {wildcards.part}"
    script:
        "../scripts/picking_figures.py"


rule pfilt:
    input:
        stack="results/particles/win/winser_{batch}.mrcs",
        table="results/particles/win/winser_{batch}.star",
        defocus="results/ctf/micrographs.star",
    output:
        "results/particles/flt/winser_{batch}.mrcs",
    log:
        "logs/pfilt/{batch}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("pfilt"),
        runtime=minutes("pfilt"),
    params:
        code=code("pfilt"),
    message:
        "Low-pass the windows of batch {wildcards.batch} for looking at them"
    script:
        "../scripts/pfilt.py"


rule propose_good:
    input:
        WINDOW_TABLES,
    output:
        "results/particles/good.proposed.star",
    log:
        "logs/propose_good.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("propose_good"),
        runtime=minutes("propose_good"),
    params:
        code=code("propose_good"),
    message:
        "Propose which windows hold good particles"
    script:
        "../scripts/propose_good.py"


rule good:
    input:
        proposed="results/particles/good.proposed.star",
        edit=edit("good"),
    output:
        "results/particles/good.star",
    log:
        "logs/good.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("good"),
        runtime=minutes("good"),
    params:
        edit=edit_content("good"),
        code=code("good"),
    message:
        "Good particles: the proposal, or edits/good.star"
    script:
        "../scripts/good.py"


rule renumber:
    input:
        good="results/particles/good.star",
        windows=WINDOW_TABLES,
        coordinates="results/particles/coordinates.star",
        defocus="results/ctf/micrographs.star",
        heights=(
            expand(HEIGHTS, batch=PROJECT.batch_labels)
            if CONFIG.ctf.local == "particle" and not CONFIG.input.particles
            else []
        ),
    output:
        table="results/particles/ngood.star",
        percent="results/particles/percent_selected.star",
        left_out="results/particles/left_out.star",
    log:
        "logs/renumber.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("renumber"),
        runtime=minutes("renumber"),
    params:
        distance=CONFIG.particles.duplicate_distance * CONFIG.particle.diameter,
        pixel_size=CONFIG.input.pixel_size,
        seed=CONFIG.project.seed,
        code=code("renumber"),
    message:
        "Drop duplicates, split into half-sets, count"
    script:
        "../scripts/renumber.py"
