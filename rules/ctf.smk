# Power spectra, defocus, screening, defocus groups.
from nephila.ctf_results import check_results, result_files
from nephila.defocus_by_hand import edge_of_spectra

CTF_RESULTS = ["results/ctf/micrographs.star", "results/ctf/defocus.star", "results/ctf/sel_micrograph.star"]
DEFOCUS_GROUP_RESULTS = [
    *CTF_RESULTS,
    "results/ctf/def_sort.star",
    "results/ctf/def_avg.star",
    "results/ctf/sel_group.star",
    "results/ctf/group_phases.star",
]
HEIGHTS = f"results/ctf/power/heights_{CONFIG.ctf.method}_{{batch}}.star"
RINGS = "roo" if CONFIG.ctf.method == "powdefocus" else f"rings_{CONFIG.ctf.method}"


def heights_of(method):
    """The tiles' heights, a further output of this method's fits with `ctf.local: particle`."""
    return {"heights": f"results/ctf/power/heights_{method}_{{batch}}.star"} if CONFIG.ctf.local == "particle" else {}


if not CONFIG.input.particles:

    rule powdefocus:
        input:
            # not the list of all micrographs: a new one, or a changed one, would rerun every batch
            micrographs=lambda wc: PROJECT.micrographs_of(wc.batch),
        output:
            power="results/ctf/power/pw_avg_{batch}.mrcs",
            profiles="results/ctf/power/roo_{batch}.star",
            defocus="results/ctf/power/powdefocus_{batch}.star",
            spectra=(
                temp("results/ctf/power/spectra_{batch}.npz")
                if not CONFIG.jobs.keep_intermediate
                else "results/ctf/power/spectra_{batch}.npz"
            ),
        log:
            "logs/powdefocus/{batch}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("powdefocus"),
            runtime=minutes("powdefocus"),
        params:
            names=lambda wc: PROJECT.names_of(wc.batch),
            input=section("input"),
            optics=section("optics"),
            ctf=section("ctf"),
            code=code("powdefocus"),
        message:
            "Power spectra and 1D defocus of batch {wildcards.batch}"
        script:
            "../scripts/powdefocus.py"

    rule ctffind:
        input:
            spectra="results/ctf/power/spectra_{batch}.npz",
            strength=[],
        output:
            **heights_of("ctffind"),
            defocus="results/ctf/power/ctffind_{batch}.star",
            rings="results/ctf/power/rings_ctffind_{batch}.star",
            pictures=directory("results/ctf/figures/{batch}"),
        log:
            "logs/ctffind/{batch}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("ctffind"),
            runtime=minutes("ctffind"),
        params:
            names=lambda wc: PROJECT.names_of(wc.batch),
            optics=section("optics"),
            ctf=section("ctf"),
            code=code("ctffind"),
        message:
            "2D defocus with astigmatism of batch {wildcards.batch}"
        script:
            "../scripts/ctffind.py"

    rule ring_strength:
        input:
            fits=expand("results/ctf/power/ctffind_{batch}.star", batch=PROJECT.batch_labels),
            rings=expand("results/ctf/power/rings_ctffind_{batch}.star", batch=PROJECT.batch_labels),
        output:
            "results/ctf/ring_strength.star",
        log:
            "logs/ring_strength.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("ring_strength"),
            runtime=minutes("ring_strength"),
        params:
            code=code("ring_strength"),
        message:
            "Pool the strength of the rings"
        script:
            "../scripts/ring_strength.py"

    rule ctffind_pooled:
        input:
            spectra="results/ctf/power/spectra_{batch}.npz",
            strength=["results/ctf/ring_strength.star"],
        output:
            **heights_of("ctffind_pooled"),
            defocus="results/ctf/power/ctffind_pooled_{batch}.star",
            rings="results/ctf/power/rings_ctffind_pooled_{batch}.star",
            pictures=directory("results/ctf/figures_pooled/{batch}"),
        log:
            "logs/ctffind_pooled/{batch}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("ctffind_pooled"),
            runtime=minutes("ctffind_pooled"),
        params:
            names=lambda wc: PROJECT.names_of(wc.batch),
            optics=section("optics"),
            ctf=section("ctf"),
            code=code("ctffind"),
        message:
            "2D defocus of batch {wildcards.batch} with the strength of the rings in the data set"
        script:
            "../scripts/ctffind.py"

    if CONFIG.ctf.method == "import":
        checked(check_results)(CONFIG.ctf.import_from, list(PROJECT.batches))

        rule import_ctf:
            input:
                spectra="results/ctf/power/spectra_{batch}.npz",
                given=lambda wc: result_files(CONFIG.ctf.import_from, PROJECT.names_of(wc.batch)),
            output:
                defocus="results/ctf/power/import_{batch}.star",
                rings="results/ctf/power/rings_import_{batch}.star",
                pictures=directory("results/ctf/figures/{batch}"),
            log:
                "logs/import_ctf/{batch}.log",
            conda:
                ENVIRONMENT
            resources:
                mem_mb=memory("import_ctf"),
                runtime=minutes("import_ctf"),
            params:
                names=lambda wc: PROJECT.names_of(wc.batch),
                optics=section("optics"),
                ctf=section("ctf"),
                pixel_size=CONFIG.input.pixel_size,
                code=code("import_ctf"),
            message:
                "Take the CTFs of batch {wildcards.batch} from another program and check them"
            script:
                "../scripts/import_ctf.py"

    checkpoint merge_ctf:
        input:
            list="results/project/micrographs.star",
            fits=expand("results/ctf/power/{method}_{batch}.star", method=CONFIG.ctf.method, batch=PROJECT.batch_labels),
        output:
            micrographs="results/ctf/micrographs.star",
        log:
            "logs/merge_ctf.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("merge_ctf"),
            runtime=minutes("merge_ctf"),
        params:
            screening=CONFIG.ctf.screening.model_dump(),
            optics=section("optics"),
            code=code("merge_ctf"),
        message:
            "Collect the defoci and propose which micrographs to keep"
        script:
            "../scripts/merge_ctf.py"

else:

    checkpoint merge_ctf:
        input:
            CONFIG.input.particle_tables,
        output:
            micrographs="results/ctf/micrographs.star",
        log:
            "logs/merge_ctf.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("merge_ctf"),
            runtime=minutes("merge_ctf"),
        params:
            screening=CONFIG.ctf.screening.model_dump(),
            batches=PROJECT.batches,
            several=CONFIG.input.optics_groups == "several",
            overfocus=CONFIG.input.overfocus,
            code=code("import_defocus"),
        message:
            "Take the micrographs' defoci from the particles given"
        script:
            "../scripts/import_defocus.py"


rule defocus:
    input:
        micrographs="results/ctf/micrographs.star",
        edit=edit("defocus"),
    output:
        "results/ctf/defocus.star",
    log:
        "logs/defocus.log",
    conda:
        ENVIRONMENT
    params:
        edit=edit_content("defocus"),
        code=code("defocus"),
    message:
        "Defoci in use: those fitted, or by hand (edits/defocus.star)"
    script:
        "../scripts/defocus.py"


if not CONFIG.input.particles:

    rule powchk:
        input:
            micrographs="results/ctf/defocus.star",
            power=expand("results/ctf/power/pw_avg_{batch}.mrcs", batch=PROJECT.batch_labels),
        output:
            directory("results/ctf/figures_by_hand"),
        log:
            "logs/powchk.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory("powchk"),
            runtime=minutes("powchk"),
        params:
            optics=section("optics"),
            pixel_size=CONFIG.input.pixel_size * CONFIG.input.decimate,
            resolution=edge_of_spectra(CONFIG.input.pixel_size * CONFIG.input.decimate),
            code=code("powchk"),
        message:
            "Draw the micrographs that were fitted by hand"
        script:
            "../scripts/powchk.py"


rule sel_micrograph:
    input:
        micrographs="results/ctf/defocus.star",
        edit=edit("sel_micrograph"),
    output:
        proposed="results/ctf/sel_micrograph.proposed.star",
        table="results/ctf/sel_micrograph.star",
    log:
        "logs/sel_micrograph.log",
    conda:
        ENVIRONMENT
    params:
        edit=edit_content("sel_micrograph"),
        code=code("sel_micrograph"),
    message:
        "Micrographs kept: the proposal, or edits/sel_micrograph.star"
    script:
        "../scripts/sel_micrograph.py"


rule defsort:
    input:
        micrographs="results/ctf/defocus.star",
        selection="results/ctf/sel_micrograph.star",
    output:
        proposed="results/ctf/def_sort.proposed.star",
    log:
        "logs/defsort.log",
    conda:
        ENVIRONMENT
    params:
        optics=section("optics"),
        groups=section("defocus_groups"),
        code=code("defsort"),
    message:
        "Propose defocus groups"
    script:
        "../scripts/defsort.py"


rule def_sort:
    input:
        proposed="results/ctf/def_sort.proposed.star",
        edit=edit("def_sort"),
    output:
        "results/ctf/def_sort.star",
    log:
        "logs/def_sort.log",
    conda:
        ENVIRONMENT
    params:
        edit=edit_content("def_sort"),
        code=code("def_sort"),
    message:
        "Defocus groups: the proposal, or edits/def_sort.star"
    script:
        "../scripts/def_sort.py"


rule defavg:
    input:
        micrographs="results/ctf/defocus.star",
        def_sort="results/ctf/def_sort.star",
    output:
        def_avg="results/ctf/def_avg.star",
        sel_group="results/ctf/sel_group.star",
    log:
        "logs/defavg.log",
    conda:
        ENVIRONMENT
    params:
        optics=section("optics"),
        code=code("defavg"),
    message:
        "Average defocus and worst phase error of each group"
    script:
        "../scripts/defavg.py"


rule plotgroups:
    input:
        micrographs="results/ctf/defocus.star",
        def_avg="results/ctf/def_avg.star",
        rings=(
            expand("results/ctf/power/{rings}_{batch}.star", rings=RINGS, batch=PROJECT.batch_labels)
            if not CONFIG.input.particles
            else []
        ),
    output:
        table="results/ctf/group_phases.star",
        figures=report(
            directory("results/ctf/group_figures"),
            patterns=["{name}.png"],
            caption="captions/groups.rst",
            category="Defocus groups",
        ),
    log:
        "logs/plotgroups.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("plotgroups"),
        runtime=minutes("plotgroups"),
    params:
        optics=section("optics"),
        code=code("plotgroups"),
    message:
        "Draw the rings of each defocus group over each other"
    script:
        "../scripts/plotgroups.py"
