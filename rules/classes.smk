# 3D classes of the refined particles, in their refined poses: with `classes.count` above 1.
CLASSES = [f"{number:02d}" for number in range(1, CONFIG.classes.count + 1)]
CLASS_FOLDER = "results/refinement/classes"
CLASS_RESULTS = (
    [
        f"{CLASS_FOLDER}/particles.star",
        f"{CLASS_FOLDER}/classes.star",
        f"{CLASS_FOLDER}/between.star",
        "results/refinement/figures/classes.png",
        *expand(f"{CLASS_FOLDER}/class_{{number}}/particles.star", number=CLASSES),
    ]
    if CONFIG.classes.count > 1
    else []
)


@checked
def class_results(wildcards):
    """Results of the stage; an error where no classes are asked for."""
    if not CLASS_RESULTS:
        raise InputError("classes.count: 1, so there is nothing to separate; set it to the number of classes")
    return CLASS_RESULTS


rule assign_classes:
    input:
        particles="results/refinement/particles.star",
        stacks=by_group("results/alignment/group_{group}/data.mrcs"),
        model=f"results/refinement/iter_{LAST}/model.star",
        references=CONFIG.classes.references,
        mask=RESULT_MASK,
    output:
        particles=f"{CLASS_FOLDER}/particles.star",
        rounds=f"{CLASS_FOLDER}/rounds.star",
    log:
        "logs/assign_classes.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("assign_classes"),
        runtime=minutes("assign_classes"),
    params:
        classes=section("classes"),
        settings=PROJECT.result_settings,
        optics=section("optics"),
        code=code("assign_classes"),
    message:
        "Assign particles to 3D classes"
    script:
        "../scripts/assign_classes.py"


rule class_maps:
    input:
        particles=f"{CLASS_FOLDER}/particles.star",
        stacks=by_group("results/alignment/group_{group}/data.mrcs"),
        model=f"results/refinement/iter_{LAST}/model.star",
        mask=RESULT_MASK,
    output:
        map=f"{CLASS_FOLDER}/class_{{number}}/map.mrc",
        filtered=f"{CLASS_FOLDER}/class_{{number}}/map_filtered.mrc",
        half1=f"{CLASS_FOLDER}/class_{{number}}/half1.mrc",
        half2=f"{CLASS_FOLDER}/class_{{number}}/half2.mrc",
        fsc=f"{CLASS_FOLDER}/class_{{number}}/fsc.star",
        particles=f"{CLASS_FOLDER}/class_{{number}}/particles.star",
    log:
        "logs/class_maps/{number}.log",
    wildcard_constraints:
        number=r"\d{2}",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("class_maps"),
        runtime=minutes("class_maps"),
    params:
        settings=PROJECT.result_settings,
        final=PROJECT.final_settings,
        optics=section("optics"),
        code=code("class_maps"),
    message:
        "Reconstruct 3D class {wildcards.number}"
    script:
        "../scripts/class_maps.py"


rule compare_classes:
    input:
        particles=f"{CLASS_FOLDER}/particles.star",
        maps=expand(f"{CLASS_FOLDER}/class_{{number}}/map.mrc", number=CLASSES),
        filtered=expand(f"{CLASS_FOLDER}/class_{{number}}/map_filtered.mrc", number=CLASSES),
        fsc=expand(f"{CLASS_FOLDER}/class_{{number}}/fsc.star", number=CLASSES),
        mask=RESULT_MASK,
    output:
        classes=f"{CLASS_FOLDER}/classes.star",
        fsc=f"{CLASS_FOLDER}/between.star",
        figure=report("results/refinement/figures/classes.png", caption="captions/classes.rst", category="Refinement"),
    log:
        "logs/compare_classes.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory("compare_classes"),
        runtime=minutes("compare_classes"),
    params:
        settings=PROJECT.result_settings,
        code=code("compare_classes"),
    message:
        "Compare the 3D classes"
    script:
        "../scripts/compare_classes.py"
