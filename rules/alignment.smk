# Particles by defocus group, and their first alignment.
from dataclasses import astuple


def alignment_results(wildcards):
    """What the stage `alignment` makes; groups are known once the defoci are."""
    return [
        "results/alignment/sel_group.star",
        "results/alignment/projections.mrcs",
        *by_group("results/alignment/group_{group}/align.star")(wildcards),
    ]


def windows_of_group(wildcards):
    """Window stacks that hold particles of a group."""
    return expand("results/particles/win/winser_{batch}.mrcs", batch=PROJECT.batches_of(group(wildcards).micrographs))


rule sel_by_group:
    input:
        particles="results/particles/ngood.star",
        def_avg="results/ctf/def_avg.star",
        fits="results/ctf/micrographs.star",
        edit=edit("defocus"),
    output:
        particles="results/alignment/sel_particles.star",
        groups="results/alignment/sel_group.star",
    log:
        "logs/sel_by_group.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("sel_by_group"),
        runtime=minutes("sel_by_group"),
    params:
        optics=section("optics"),
        pixel_size=CONFIG.pixel_size,
        box=CONFIG.box,
        name=CONFIG.project.name,
        edit=edit_content("defocus"),
        code=code("sel_by_group"),
    message:
        "List the particles of each defocus group"
    script:
        "../scripts/sel_by_group.py"


rule win2stk:
    input:
        # not the table sorted by group: a step that all groups share would hide which groups an edit changes
        particles="results/particles/ngood.star",
        windows=windows_of_group,
    output:
        stack="results/alignment/group_{group}/data.mrcs",
        table="results/alignment/group_{group}/sel_particles.star",
    log:
        "logs/win2stk/{group}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("win2stk"),
        runtime=minutes("win2stk"),
    params:
        group=lambda wc: astuple(group(wc)),
        pixel_size=CONFIG.pixel_size,
        dtype=CONFIG.particles.dtype,
        box=CONFIG.box,
        optics=section("optics"),
        name=CONFIG.project.name,
        code=code("win2stk"),
    message:
        "Stack the particles of group {wildcards.group}"
    script:
        "../scripts/win2stk.py"


rule initial_model:
    input:
        stacks=by_group("results/alignment/group_{group}/data.mrcs"),
        tables=by_group("results/alignment/group_{group}/sel_particles.star"),
    output:
        volume="results/reference/initial.mrc",
        mirror="results/reference/initial_mirror.mrc",
        tries="results/reference/initial.star",
    log:
        "logs/initial_model.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("initial_model"),
        runtime=minutes("initial_model"),
    params:
        settings=PROJECT.initial_model_settings,
        pixel_size=CONFIG.pixel_size,
        box=CONFIG.box,
        optics=section("optics"),
        code=code("initial_model"),
    message:
        "Make an initial model from the particles"
    script:
        "../scripts/initial_model.py"


rule refproj:
    input:
        volume="results/project/reference_volume.mrc",
    output:
        directions="results/alignment/refangles.star",
        projections="results/alignment/projections.mrcs",
    log:
        "logs/refproj.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("refproj"),
        runtime=minutes("refproj"),
    params:
        step=CONFIG.alignment.angular_step_deg,
        resolution=CONFIG.reference.resolution,
        code=code("refproj"),
    message:
        "Project the reference at quasi-even directions"
    script:
        "../scripts/refproj.py"


rule refproj_ctf:
    input:
        projections="results/alignment/projections.mrcs",
        table="results/alignment/group_{group}/sel_particles.star",
    output:
        "results/alignment/group_{group}/projections.mrcs",
    log:
        "logs/refproj_ctf/{group}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("refproj_ctf"),
        runtime=minutes("refproj_ctf"),
    params:
        optics=section("optics"),
        code=code("refproj_ctf"),
    message:
        "Multiply the reference's projections by the CTF of group {wildcards.group}"
    script:
        "../scripts/refproj_ctf.py"


# on request: SPIDER's sets of references, one for each group
rule apshgrp:
    input:
        stack="results/alignment/group_{group}/data.mrcs",
        table="results/alignment/group_{group}/sel_particles.star",
        volume="results/project/reference_volume.mrc",
        directions="results/alignment/refangles.star",
    output:
        "results/alignment/group_{group}/align.star",
    log:
        "logs/apshgrp/{group}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("apshgrp"),
        runtime=minutes("apshgrp"),
    params:
        alignment=section("alignment"),
        optics=section("optics"),
        particle=section("particle"),
        resolution=CONFIG.reference.resolution,
        code=code("apshgrp"),
    message:
        "Align the particles of group {wildcards.group} to the reference"
    script:
        "../scripts/apshgrp.py"
