# The project: parameters, list of micrographs, starting volume.
HANDS = {False: "results/reference/initial.mrc", True: "results/reference/initial_mirror.mrc"}


rule makeparams:
    output:
        "results/project/params.star",
    log:
        "logs/makeparams.log",
    conda:
        ENVIRONMENT
    params:
        parameters=project_parameters(CONFIG),
        code=code("makeparams"),
    message:
        "Write the project's parameters"
    script:
        "../scripts/makeparams.py"


rule makefilelist:
    input:
        PROJECT.sources,
    output:
        "results/project/micrographs.star",
    log:
        "logs/makefilelist.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("makefilelist"),
        runtime=minutes("makefilelist"),
    params:
        batches=PROJECT.batches,
        particles=CONFIG.input.particles,
        input=section("input"),
        box=CONFIG.cut_box,
        code=code("makefilelist"),
    message:
        "List the micrographs and check that they belong together"
    script:
        "../scripts/makefilelist.py"


rule resizevol:
    input:
        CONFIG.reference.volume or HANDS[CONFIG.reference.initial.mirror],
    output:
        volume="results/project/reference_volume.mrc",
    log:
        "logs/resizevol.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("resizevol"),
        runtime=minutes("resizevol"),
    params:
        reference=CONFIG.reference.model_dump(exclude={"initial"}),
        box=CONFIG.box,
        pixel_size=CONFIG.pixel_size,
        diameter=CONFIG.particle.diameter,
        code=code("resizevol"),
    message:
        "Bring the starting volume to the project's pixel size and box"
    script:
        "../scripts/resizevol.py"


rule nat2stk:
    input:
        "{folder}/order_select.dat",
    output:
        stack="{folder}/particles.mrcs",
        table="{folder}/particles.star",
    log:
        "logs/nat2stk/{folder}.log",
    wildcard_constraints:
        folder=r"(?!results/).+",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("nat2stk"),
        runtime=minutes("nat2stk"),
    params:
        optics=section("optics"),
        pixel_size=CONFIG.input.pixel_size,
        code=code("nat2stk"),
    message:
        "Stack the single particle images of the Nature Protocols layout in {wildcards.folder}"
    script:
        "../scripts/nat2stk.py"
