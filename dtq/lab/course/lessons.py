"""The course: its notebooks in order, with the time that each takes."""

from typing import NamedTuple

from matplotlib.figure import Figure

from dtq.lab.charts import plot
from dtq.lab.course.exercises import progress


class Lesson(NamedTuple):
    """A notebook, named as its file without the ending; `does` says what a learner does in it."""

    notebook: str
    minutes: int
    does: str


LESSONS = (
    Lesson("week0_start_here", 15, "check the machine, see the map, try an exercise"),
    Lesson("week1_1_first_tasks", 60, "start a cluster, submit tasks, follow them through all their states"),
    Lesson("week1_2_redis_state", 60, "open Redis: every key, and which event changes which"),
    Lesson("week2_1_worker_failure", 75, "kill and pause workers: a naive queue loses tasks, dtq none"),
    Lesson("week2_2_scaling", 60, "let workers join while tasks run; speed-up, and why it bends"),
    Lesson("week2_3_priorities", 45, "let urgent tasks overtake, and keep the others from starving"),
    Lesson("week2_4_watching_redis", 60, "count commands and round trips; lose a wake-up"),
    Lesson("week2_5_load", 75, "raise the load: queues, waiting time, Little's law"),
    Lesson(
        "week3_1_code_walk", 90, "follow one task through the code, function by function; draw the states"
    ),
    Lesson("week3_2_your_own_tasks", 75, "write task types, reload them under load, change the worker"),
    Lesson(
        "week4_1_retries_and_dead_letters",
        60,
        "let tasks fail, spread a herd, stop poison, empty the dead letter",
    ),
    Lesson(
        "week4_2_metrics_and_dashboard",
        60,
        "percentiles and throughput from sorted sets; Prometheus; a live page",
    ),
    Lesson("week4_3_dependencies", 60, "run a graph of tasks; find its critical path; fail a parent"),
    Lesson("week4_4_tracing", 60, "follow one task through all processes with OpenTelemetry"),
    Lesson(
        "week5_1_security",
        75,
        "make and revoke keys, lose an answer, press on a rate limit, write a token bucket in Lua",
    ),
    Lesson(
        "week5_2_operations",
        75,
        "read logs as data, watch memory level off, kill Redis, let the doctor find a broken setting",
    ),
    Lesson(
        "week5_3_failover",
        75,
        "kill the primary under load: what is lost, with and without `WAIT`",
    ),
    Lesson(
        "week5_4_how_far",
        75,
        "measure what a task costs each part; work out what one Redis carries; run a task type under Celery",
    ),
)


@plot.styled
def course_map(folder: str = ".") -> Figure:
    """The way through the course: a bar per notebook, as long as it takes, and the checks you have passed.

    Args:
        folder: where the notebooks are.
    """
    passed = progress(folder).to_dict("index")
    ax = Figure(figsize=(plot.WIDTH, 0.9 + 0.36 * len(LESSONS)), layout="constrained").add_subplot()
    hours = 0.0
    for row, lesson in enumerate(LESSONS):
        week = int(lesson.notebook[len("week")])
        ax.barh(
            row, lesson.minutes / 60, left=hours, height=0.6, color=plot.BLUE if week % 2 else plot.ORANGE
        )
        hours += lesson.minutes / 60
        checks = passed.get(lesson.notebook, {"checks_passed": 0, "checks": 0})
        says = f" {lesson.minutes} min, {checks['checks_passed']} of {checks['checks']} checks"
        ax.text(hours, row, says, va="center")
    ax.set(yticks=range(len(LESSONS)), yticklabels=[lesson.notebook for lesson in LESSONS])
    ax.set(
        xlabel="hours from the start of the course", xlim=(0, 1.3 * hours), ylim=(len(LESSONS) - 0.45, -0.55)
    )
    return plot.finish(ax, "How long does each notebook take, and how far are you?")
