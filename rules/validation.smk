# What judges the map, on request: `snakemake local_resolution`, `snakemake resolution_by_particles`.


rule local_resolution:
    input:
        half1="results/refinement/half1.mrc",
        half2="results/refinement/half2.mrc",
        map="results/refinement/map.mrc",
        mask=RESULT_MASK,
    output:
        resolution="results/refinement/local_resolution.mrc",
        filtered="results/refinement/map_local_filtered.mrc",
        figure="results/refinement/figures/local_resolution.png",
    log:
        "logs/local_resolution.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("local_resolution"),
        runtime=minutes("local_resolution"),
    params:
        settings=PROJECT.result_settings,
        code=code("local_resolution"),
    message:
        "Measure the resolution by place"
    script:
        "../scripts/local_resolution.py"


rule resolution_by_particles:
    input:
        particles="results/refinement/particles.star",
        stacks=by_group("results/alignment/group_{group}/data.mrcs"),
        mask=RESULT_MASK,
    output:
        table="results/refinement/resolution_by_particles.star",
        figure="results/refinement/figures/resolution_by_particles.png",
    log:
        "logs/resolution_by_particles.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("resolution_by_particles"),
        runtime=minutes("resolution_by_particles"),
    params:
        settings=PROJECT.result_settings,
        optics=section("optics"),
        code=code("resolution_by_particles"),
    message:
        "Measure the resolution of subsets of the particles"
    script:
        "../scripts/resolution_by_particles.py"
