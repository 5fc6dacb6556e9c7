# The run at a glance: its numbers, and the page that shows and explains them.


rule summary:
    input:
        "results/project/params.star",
        *REFINEMENT_RESULTS,
        *PARTICLE_RESULTS,
        *DEFOCUS_GROUP_RESULTS,
        alignment_results,
        micrographs="results/ctf/defocus.star",
        selection="results/ctf/sel_micrograph.star",
        picks="results/particles/coordinates.star",
        good="results/particles/ngood.star",
        groups="results/alignment/sel_group.star",
        particles="results/refinement/particles.star",
        map="results/refinement/map.mrc",
        fsc="results/refinement/fsc.star",
        checks="results/refinement/checks.star",
        truth=[path for path in (CONFIG.truth.map, CONFIG.truth.particles, CONFIG.truth.micrographs) if path],
        stacks=by_group("results/alignment/group_{group}/data.mrcs") if CONFIG.truth.map else [],
        mask=RESULT_MASK if CONFIG.truth.map else [],
    output:
        "results/summary.json",
        **(
            {"fsc": "results/refinement/fsc_truth.star", "figure": "results/refinement/figures/fsc_truth.png"}
            if CONFIG.truth.map
            else {}
        ),
        ledger="results/refinement/ledger.star",
    log:
        "logs/summary.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("summary"),
        runtime=minutes("summary"),
    params:
        truth=section("truth"),
        refinement=PROJECT.result_settings,
        optics=section("optics"),
        input=section("input"),
        reference=section("reference"),
        name=CONFIG.project.name,
        micrograph_pixel_size=CONFIG.input.pixel_size,
        code=code("summary"),
    message:
        "Sum up the run"
    script:
        "../scripts/summary.py"


rule report:
    input:
        "results/summary.json",
        *REFINEMENT_RESULTS,
        *PARTICLE_RESULTS,
        *DEFOCUS_GROUP_RESULTS,
        alignment_results,
        # only where there are any: without an edit nothing is drawn again
        powchk=["results/ctf/figures_by_hand"] if edit("defocus") else [],
    output:
        report("results/report.html", caption="captions/report.rst", category="Run"),
    log:
        "logs/report.log",
    conda:
        ENVIRONMENT
    params:
        config=CONFIG.model_dump(),
        page=template_hash(),
        code=code("report"),
    message:
        "Write the report"
    script:
        "../scripts/report.py"
