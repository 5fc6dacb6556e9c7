# Nephila: single-particle reconstruction with defocus groups. `snakemake -n` shows the plan, `snakemake STAGE` stops at a stage:
# ctf, defocus_groups, picks, particles, alignment, thresholds, reconstruction, refinement (everything, with the summary: all).
# On request: classes (part of the run with classes.count above 1), group_projections, local_resolution, resolution_by_particles.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


report: "rules/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/project.smk"
include: "rules/ctf.smk"
include: "rules/particles.smk"
include: "rules/alignment.smk"
include: "rules/averages.smk"
include: "rules/reconstruction.smk"
include: "rules/refinement.smk"
include: "rules/validation.smk"
include: "rules/classes.smk"
include: "rules/summary.smk"


localrules:
    all,
    classes,
    ctf,
    defocus_groups,
    picks,
    particles,
    alignment,
    group_projections,
    thresholds,
    reconstruction,
    refinement,


rule all:
    default_target: True
    input:
        "results/summary.json",
        "results/report.html",
        # by name too: a result that was deleted is made again; what only later steps needed is not
        DEFOCUS_GROUP_RESULTS,
        REFINEMENT_RESULTS,
        CLASS_RESULTS,


rule ctf:
    input:
        CTF_RESULTS,


rule defocus_groups:
    input:
        DEFOCUS_GROUP_RESULTS,


rule picks:
    input:
        PICK_RESULTS,


rule particles:
    input:
        PARTICLE_RESULTS,


rule alignment:
    input:
        alignment_results,


rule thresholds:
    input:
        alignment_results,
        THRESHOLD_RESULTS,


rule reconstruction:
    input:
        alignment_results,
        RECONSTRUCTION_RESULTS,


rule refinement:
    input:
        alignment_results,
        REFINEMENT_RESULTS,


rule classes:
    input:
        class_results,


rule group_projections:
    input:
        by_group("results/alignment/group_{group}/projections.mrcs"),
