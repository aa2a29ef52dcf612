"""What docs/results.md says beside its figures."""

# Key → title, success asked for (close at / aim at), rest asked for, published best of six in % and its deviation
TASKS = {
    "cube_single": ("visual-cube-single", "98 / 100 %", "95 %", "89 ± 0"),
    "cube_single_stock_look": ("… in the stock look, official camera", "90 / 98 %", "85 %", "89 ± 0"),
    "cube_double": ("visual-cube-double", "75 / 95 %", "", "39 ± 2"),
    "cube_triple": ("visual-cube-triple", "35 / 75 %", "", "21 ± 0"),
    "scene": ("visual-scene", "60 / 90 %", "", "49 ± 4"),
}
PUBLISHED = (
    "Published: success in % of HIQL, the best of the six goal-conditioned methods (GCBC, GCIVL, GCIQL, QRL, CRL, HIQL) that OGBench "
    "(Park, Frans, Eysenbach and Levine, ICLR 2025, [arXiv 2410.20092v2](https://arxiv.org/abs/2410.20092v2)) reports on its "
    "`visual-…-play-v0` data: mean ± standard deviation over 4 training seeds, 50 episodes a task, the last three evaluations "
    "averaged. Checked against a public transcription of the paper's table, since the paper itself could not be opened here; a second "
    "source agrees on single and double. **No like with like**: those methods learn from OGBench's undirected play data without labels, "
    "at 64 × 64 pixels; the model here from a scripted expert's demonstrations in the same scene, with simulator labels in training, at "
    "128 × 128."
)
PLAN_TITLES = {
    "right": "the plan as it is: one pass from pure noise",
    "other_episode": "plan to another task's goal",
    "shuffled": "imagined frames shuffled after the world model, the last among them",
    "shuffled_way": "… all but the last",
    "permuted_times": "times permuted before the world model, all but the last",
    "goal_frame": "only the last imagined frame to be seen",
    "imagined_places": "where things are is read from imagination alone: what the live encoder saw in live and goal picture is withheld",
    "features_alone": "the world model's features of the imagined frames, but not where things are in them",
    "places_alone": "where things are in the imagined frames, but not the world model's features",
    "masked": "no imagined frame to be seen",
    "none": "no plan at all",
    "true_future": "the expert's own future frames from the state, σ = 0 (upper bound)",
    "denoised_2": "imagined frames denoised in 2 passes",
    "denoised_4": "… in 4",
    "denoised_8": "… in 8",
}
MSTH_TITLES = {
    "paper": "MSTH, spacing as printed in the paper",
    "geometric": "MSTH, geometric spacing",
    "uniform": "uniform spacing to the goal",
    "fixed": "fixed horizon of as many frames",
    "goal": "goal frame alone",
}
HORIZONS = {"short": "short (single)", "medium": "medium (double)", "long": "long (triple, scene)"}
SETTINGS = {
    "cube_colours": "cube colours (limes, cyans, violets, magentas)",
    "region": "table regions (up to 3 cm outside OGBench's area)",
    "light": "light and shadow",
    "camera": "camera, up to ± 2 cm and 3° (*)",
    "distractor": "a distractor object (*)",
}
LOOKS = (
    "(*) Training data with random looks (`act2goal data sim --randomised`) have these too, from the same range: unseen are then the "
    "draws, not the kind (a distractor may have any hue here, in training those of a lone cube). Light and shadow go farther than such "
    "data do; hues are those that no training data have."
)

WORLD_NOTE = (
    "Fréchet: distance between normal distributions fitted to the autoencoder's latents of imagined and of true frames, after one fixed "
    "random projection to 32 dimensions. It is no FVD and no LPIPS (nothing is downloaded) and is to be compared within this page only; "
    "beside it the distance between two halves of the true frames. Cube: the centre of what is red, in mm across the line of sight from "
    "the simulator's position, on cube-single only. Time to goal: by the true distance."
)
EARLIER_NOTE = "(†) Measured when success was looked for every 20 ms and episodes were 0.1 s shorter."
INTRO = (
    "Success is OGBench's criterion after any of its control steps (0.05 s) in an episode of its length, in the plain Python loop (a "
    "camera frame every 40 ms, 40 ms from frame to command); at rest and released: success at the end, with the joints at rest and the "
    "gripper open. Every evaluation seed has resets of its own. Intervals of rates are Wilson's (95 %) over all episodes: the five "
    "tasks are all there are, not a sample, and resets are drawn for each, so they are rather too wide; an interval for other tasks of "
    "the kind (Student's t over the tasks' rates) is in the JSON. Differences are paired by task and reset, with Newcombe's interval "
    "(95 %)."
)
LEVELS = "True future and denoising need weights exported with the noise level as an input."
BEST = "The best is picked by the same episodes, which favours it."
BASELINES = {
    "act2goal": "act2goal, imagining the way",
    "act": "LeRobot's ACT, the goal's picture as a second camera",
    "gcbc": "goal-conditioned behaviour cloning, no imagination",
}
BASELINE_NOTE = (
    "Policies learn from the same steps and goals of the same recordings (which of them, and how often, the simulator's labels help to "
    "choose), act through the same command stream and limits, and were trained on one core each for the time that stands there. "
    "act2goal's time is that of its parts together; beside the choice it alone learns from labels of where things are."
)
