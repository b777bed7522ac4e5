"""A run folder written by hand, whose numbers are known."""

import json

# Two learning rates and two networks, two seeds each: run r has setting r // 2 and seed 7 + r % 2.
CONFIG = {
    "algorithm": "dqn", "env": "CartPole-v0", "preset": "original", "seeds": 2, "seed": 7, "solved_at": 195.0,
    "swept": ["lr", "hidden_sizes"],
    "settings": [{"lr": lr, "hidden_sizes": sizes} for lr in (1e-3, 3e-4) for sizes in ([8], [4, 4])],
}  # fmt: skip
FINAL = [10.0, 20.0, 30.0, 50.0, 200.0, 100.0, 5.0, 6.0]
SUMMARY = {
    "env": "CartPole-v0", "solved_at": 195.0, "stop_when_solved": False, "seeds": 2, "failed_runs": [7],
    "settings": CONFIG["settings"], "final_return_per_run": FINAL,
    "area_under_curve_per_run": [1, 2, 3, 4, 5, 60, 7, 8],
    "env_steps_per_run": [2000] * 8, "env_steps_to_solve_per_run": [None] * 4 + [1500, 900, None, None],
    "stopped_by": "SIGINT",
}  # fmt: skip


def write_run(path, config=CONFIG, summary=SUMMARY):
    """Two rows of metrics and one episode per run; the return of run r after step t is r + t / 1000."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    if summary:
        (path / "summary.json").write_text(json.dumps(summary))
    swept = [(setting["lr"], "x".join(map(str, setting["hidden_sizes"]))) for setting in CONFIG["settings"]]
    with (path / "metrics.csv").open("w") as file:
        file.write("run,seed,env_steps,episodes,return_mean,return_100,eval_return,loss,lr,hidden_sizes\n")
        for steps in (1000, 2000):
            for run in range(8):
                lr, sizes = swept[run // 2]
                file.write(
                    f"{run},{7 + run % 2},{steps},{steps // 10},1,{run + steps / 1000:g},,{0.5 * run},{lr:g},{sizes}\n"
                )
    with (path / "episodes.csv").open("w") as file:
        file.write("run,seed,episode,env_steps,return,length,lr,hidden_sizes\n")
        for run in range(8):
            lr, sizes = swept[run // 2]
            file.write(f"{run},{7 + run % 2},1,9,9,9,{lr:g},{sizes}\n")
    return path
