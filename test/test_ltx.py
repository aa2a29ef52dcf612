"""Preset `paper`: LTX-Video's layout, on tiny random weights written by diffusers itself and read again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dataset import episode

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
safetensors_torch = pytest.importorskip("safetensors.torch")

from click.testing import CliRunner  # noqa: E402

from act2goal_ros.cli.train import command  # noqa: E402
from act2goal_ros.learning.batches import HOLD_STEPS, Batch, Episodes, Sampler, action_scales  # noqa: E402
from act2goal_ros.learning.dataset import Episode, write_shard  # noqa: E402
from act2goal_ros.learning.ltx_system import LtxSystem, show_pictures  # noqa: E402
from act2goal_ros.learning.presets import build_system  # noqa: E402
from act2goal_ros.learning.system import load  # noqa: E402
from act2goal_ros.model.config import PRESETS, ConfigError, ModelConfig  # noqa: E402
from act2goal_ros.model.ltx import LtxWorldModel  # noqa: E402
from act2goal_ros.model.ltx_autoencoder import LtxAutoencoder  # noqa: E402
from act2goal_ros.model.pretrained import PretrainedError, load_autoencoder, load_world  # noqa: E402

SIZES: dict[str, Any] = {"camera_size": 32, "image_size": 32, "latent_channels": 4, "latent_size": 4, "blocks": 4, "world_width": 48,
                         "world_heads": 4, "expert_width": 32, "expert_heads": 4, "live_width": 8, "temporal_compression": 2,
                         "chunk_steps": 6, "vision_stride": 2, "dense_frames": 3, "distal_frames": 3}  # fmt: skip
SMALL = replace(PRESETS["paper"], views=1, **SIZES)
THREE = replace(SMALL, views=3)
CAPTION = 24


def transformer(**changes: Any) -> Any:
    layout = {"in_channels": 4, "out_channels": 4, "num_layers": 4, "num_attention_heads": 4, "attention_head_dim": 12,
              "cross_attention_dim": 48, "caption_channels": CAPTION}  # fmt: skip
    return diffusers.LTXVideoTransformer3DModel(**{**layout, **changes})


def vae(**changes: Any) -> Any:
    """8 times smaller, half as many frames."""
    layout = {
        "latent_channels": 4,
        "block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "layers_per_block": (1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1),
        "spatio_temporal_scaling": (True, False),
        "decoder_spatio_temporal_scaling": (True, False),
        "down_block_types": ("LTXVideoDownBlock3D",) * 2,
        "downsample_type": ("conv", "conv"),
        "decoder_inject_noise": (False,) * 3,
        "upsample_residual": (False, False),
        "upsample_factor": (1, 1),
    }
    made = diffusers.AutoencoderKLLTXVideo(**{**layout, **changes})
    made.latents_mean.normal_()
    made.latents_std.uniform_(0.5, 2.0)
    return made


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as LTX-Video's: transformer (in shards), autoencoder, and the empty prompt."""
    folder = tmp_path_factory.mktemp("ltx")
    torch.manual_seed(3)
    transformer().save_pretrained(folder / "transformer", max_shard_size="100KB")
    vae().save_pretrained(folder / "vae")
    safetensors_torch.save_file({"embedding": torch.randn(1, CAPTION)}, folder / "empty_prompt.safetensors")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Episodes]:
    """By number of views: episodes of noise, 32 × 32 pictures of each camera one above the other."""
    found = {}
    for views in (1, 3):
        folder = tmp_path_factory.mktemp("data")
        made = [episode(60 + HOLD_STEPS, seed) for seed in range(3)]
        random = np.random.default_rng(0)
        frames = [random.integers(0, 255, (len(e.frames), views * 32, 32, 3), np.uint8) for e in made]
        write_shard(folder / "00000", [Episode(**{**e.__dict__, "frames": f}) for e, f in zip(made, frames, strict=True)])
        found[views] = Episodes(folder, config=replace(SMALL, views=views))
        show_pictures(found[views])
    return found


def system_of(config: ModelConfig, episodes: Episodes, pretrained: Path) -> LtxSystem:
    torch.manual_seed(0)
    made = build_system(config, pretrained, say=lambda text: None)
    assert isinstance(made, LtxSystem)
    scale, velocity = action_scales(episodes, [0, 1], config)
    made.expert.action_scale.copy_(torch.from_numpy(scale))
    made.expert.velocity_scale.copy_(torch.from_numpy(velocity))
    return made


def batch_of(config: ModelConfig, episodes: Episodes, plans: int = 2) -> Batch:
    return Sampler(episodes, [0, 1], config, 0).batch(plans)


def inputs(config: ModelConfig, plans: int = 2) -> tuple[Any, ...]:
    """noisy, current, goal, offsets, level."""
    generator = torch.Generator().manual_seed(1)
    shape = (plans, len(config.latent_frames), *config.latent_shape)
    noisy, current, goal = (torch.randn(s, generator=generator) for s in (shape, shape[:1] + shape[2:], shape[:1] + shape[2:]))
    return noisy, current, goal, torch.tensor([[2.0, 4, 6, 20, 31, 40]] * plans), torch.tensor([1.0, 0.4][:plans])


def test_latent_frames_of_the_paper() -> None:
    """9 + 9 frames are 2 + 2 latents: the first of each clip alone, then eight together."""
    assert PRESETS["paper"].latent_frames == ((0, 0), (1, 8), (9, 9), (10, 17))
    assert PRESETS["paper"].dense_latents == 2
    assert PRESETS["tiny"].latent_frames == tuple((i, i) for i in range(6))


def test_the_velocity_is_that_of_ltx_video_with_an_empty_prompt(published: Path) -> None:
    """Same tokens, noise levels, rotary coordinates: what diffusers computes with its text input is computed without it."""
    world = LtxWorldModel(SMALL)
    load_world(world, published)
    noisy, current, goal, offsets, level = inputs(SMALL)
    velocity, _ = world(noisy, current, goal, offsets, level)

    reference = diffusers.LTXVideoTransformer3DModel.from_pretrained(published / "transformer", low_cpu_mem_usage=False)
    frames = torch.cat([current[:, None], goal[:, None], noisy], 1)  # (B, F, C, H, W)
    tokens = frames.permute(0, 1, 3, 4, 2).flatten(1, 3)
    times = torch.tensor([0.0, 40, 2, 4, 20, 31]) * 0.05  # now, goal, then the first frame of each latent
    grid = torch.meshgrid(times, 8.0 * torch.arange(4), 8.0 * torch.arange(4), indexing="ij")
    coordinates = torch.stack([axis.flatten() for axis in grid]).expand(2, -1, -1)
    timestep = 1000 * (torch.arange(6 * 16) >= 32) * level[:, None]
    text = safetensors_torch.load_file(published / "empty_prompt.safetensors")["embedding"].expand(2, 1, -1)
    sample = reference(tokens, text, timestep, torch.ones(2, 1), video_coords=coordinates).sample
    expected = -sample[:, 32:].unflatten(1, (4, 4, 4)).permute(0, 1, 4, 2, 3)  # from the noise to the data
    assert torch.allclose(velocity, expected, atol=2e-5)
    assert velocity.abs().mean() > 0.05


def test_without_the_empty_prompt_cross_attention_is_left_out(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "ltx")
    (folder / "empty_prompt.safetensors").unlink()
    world = LtxWorldModel(SMALL)
    assert "text: none" in str(load_world(world, folder))
    assert all((block.attn2.value == 0).all() for block in world.transformer.transformer_blocks)


@pytest.mark.parametrize("config", [SMALL, THREE])
def test_shapes(config: ModelConfig) -> None:
    velocity, features = LtxWorldModel(config)(*inputs(config))
    assert velocity.shape == (2, 4, 4, config.views * 4, 4)
    assert features.shape == (2, 4, 4, config.views * 16, 48)


def test_hidden_states_are_each_block_s_and_of_imagined_frames_only() -> None:
    world = LtxWorldModel(SMALL)
    seen: list[Any] = []
    for block in world.transformer.transformer_blocks:
        block.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        _, features = world(*inputs(SMALL))
    for index, out in enumerate(seen):
        assert torch.equal(features[:, index].flatten(1, 2), out[:, 32:])


def test_views_are_told_apart_and_seen_together() -> None:
    torch.manual_seed(0)
    world = LtxWorldModel(THREE)
    noisy, current, goal, offsets, level = inputs(THREE)
    with torch.no_grad():
        before, _ = world(noisy, current, goal, offsets, level)
        other = current.clone()
        other[:, :, 8:] += 1.0  # the third view
        changed = (world(noisy, other, goal, offsets, level)[0] - before).abs().amax((0, 1, 2, 4)).unflatten(0, (3, 4)).amax(1)
        assert (changed > 1e-5).all(), "every view's future follows from all views"
        turned = [x.unflatten(-2, (3, 4)).roll(1, -3).flatten(-3, -2) for x in (noisy, current, goal)]
        same = world(*turned, offsets, level)[0].unflatten(-2, (3, 4)).roll(-1, -3).flatten(-3, -2)
        assert torch.allclose(same, before, atol=1e-5), "before training no view is special"
        world.view_embed.normal_()
        told = world(*turned, offsets, level)[0].unflatten(-2, (3, 4)).roll(-1, -3).flatten(-3, -2)
        assert not torch.allclose(told, world(noisy, current, goal, offsets, level)[0], atol=1e-3)


def test_a_plan_s_times_enter(published: Path) -> None:
    world = LtxWorldModel(SMALL)
    load_world(world, published)
    noisy, current, goal, offsets, level = inputs(SMALL)
    with torch.no_grad():
        before, _ = world(noisy, current, goal, offsets, level)
        later = offsets.clone()
        later[:, 3] += 5  # the first distal frame
        after, _ = world(noisy, current, goal, later, level)
        assert (after - before).abs().max() > 1e-4


def test_recomputed_gradients_are_the_same() -> None:
    torch.manual_seed(0)
    world, gradients = LtxWorldModel(THREE), []
    for world.recompute in (True, False):
        world.zero_grad()
        velocity, features = world(*inputs(THREE))
        (velocity.square().mean() + features.square().mean()).backward()
        gradients.append([p.grad.clone() for p in world.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_the_autoencoder_s_clips_and_pictures(published: Path) -> None:
    """A frame is encoded alone; of a clip, the first latent is of its first frame, whatever follows; views do not mix."""
    torch.manual_seed(0)
    autoencoder = LtxAutoencoder(THREE, load_autoencoder(THREE, published))
    clip = torch.rand(2, 3, 3, 96, 32)
    latents = autoencoder.encode_clip(clip)
    assert latents.shape == (2, 2, 4, 12, 4)
    assert autoencoder.decode_clip(latents).shape == clip.shape
    assert torch.allclose(autoencoder.encode(clip[:, 0]), latents[:, 0], atol=1e-5)
    one = LtxAutoencoder(SMALL, autoencoder.vae)
    assert torch.allclose(one.encode_clip(clip[..., 32:64, :]), latents[..., 4:8, :], atol=1e-5)
    video = clip[:, :, :, :32].transpose(1, 2)
    posterior = autoencoder.vae.encode(2 * video - 1).latent_dist.mode().transpose(1, 2)
    mean, deviation = (value.view(-1, 1, 1) for value in (autoencoder.vae.latents_mean, autoencoder.vae.latents_std))
    assert torch.allclose(latents[..., :4, :], (posterior - mean) / deviation, atol=1e-5)
    decoded = autoencoder.vae.decode(posterior.transpose(1, 2)).sample.transpose(1, 2) / 2 + 0.5
    assert torch.allclose(autoencoder.decode_clip(latents)[..., :32, :], decoded, atol=1e-4)


@pytest.mark.parametrize("config", [SMALL, THREE])
def test_training_lowers_the_losses_and_leaves_the_autoencoder(config: ModelConfig, episodes: dict[int, Episodes], published: Path) -> None:
    system = system_of(config, episodes[config.views], published).train()
    batch = batch_of(config, episodes[config.views])
    given = {name: value.clone() for name, value in system.autoencoder.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], 1e-3)
    history = []
    for _ in range(9):
        torch.manual_seed(5)
        losses = system.losses(batch)
        total = losses["video"] + 0.1 * losses["action"]
        history.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert history[1] < history[0] and history[-1] < 0.95 * history[0]
    assert all(torch.equal(value, given[name]) and value.grad is None for name, value in system.autoencoder.named_parameters())


def test_every_part_gets_a_gradient_and_the_action_loss_reaches_the_world_model(episodes: dict[int, Episodes], published: Path) -> None:
    system = system_of(THREE, episodes[3], published)
    with torch.no_grad():
        system.world.view_embed.normal_()  # while it is zero, what follows from it has no gradient
    sum(system.losses(batch_of(THREE, episodes[3])).values()).backward()
    assert [n for n, p in system.named_parameters() if p.grad is None and not n.startswith("autoencoder.")] == []
    system.zero_grad()
    system.losses(batch_of(THREE, episodes[3]))["action"].backward()  # stage 2
    for name in ("transformer_blocks.0.attn1.to_q.weight", "transformer_blocks.0.attn2.value", "proj_in.weight"):
        assert system.world.transformer.get_parameter(name).grad.abs().sum() > 0
    assert system.world.transformer.proj_out.weight.grad is None, "actions do not depend on the velocity"


def test_masks_and_times_are_those_of_latents(episodes: dict[int, Episodes], published: Path) -> None:
    system = system_of(SMALL, episodes[1], published)
    batch = batch_of(SMALL, episodes[1])
    encoded = system.encoded(batch)
    assert batch.future.shape == (2, 6, 3, 32, 32) and encoded.future.shape == (2, 4, 4, 4, 4)
    assert torch.equal(encoded.frame_times, batch.frame_times[:, [0, 2, 3, 5]])
    assert torch.equal(encoded.frame_mask, batch.frame_mask[:, [0, 2, 3, 5]])
    assert system.decoded(encoded.future[0]).shape == (6, 3, 32, 32)
    dense = system.autoencoder.encode_clip(batch.future[:, :3])
    assert torch.allclose(encoded.future[:, :2], dense, atol=1e-6)


def test_the_state_is_without_the_given_autoencoder_and_comes_back(episodes: dict[int, Episodes], published: Path) -> None:
    system = system_of(SMALL, episodes[1], published)
    state = {name: value.clone() for name, value in system.state_dict().items()}
    assert not any(name.startswith("autoencoder.") for name in state)
    other = build_system(SMALL, published, say=lambda text: None)
    for parameter in other.world.parameters():
        parameter.data.normal_()
    other.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())
    torch.manual_seed(1)
    first = system.losses(batch_of(SMALL, episodes[1]))
    torch.manual_seed(1)
    second = other.losses(batch_of(SMALL, episodes[1]))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_go_round(published: Path, tmp_path: Path) -> None:
    """Ours, written under the published names in bfloat16, are read as they were."""
    torch.manual_seed(7)
    first, second = LtxWorldModel(THREE), LtxWorldModel(THREE)
    first.view_embed.data.normal_()
    names = {name.removeprefix("transformer."): value.detach().bfloat16() for name, value in first.named_parameters()}
    shutil.copytree(published / "transformer", tmp_path / "transformer", ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors = {name: value for name, value in names.items() if "attn2" not in name}
    safetensors_torch.save_file(tensors, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    loaded = load_world(second, tmp_path)
    assert (loaded.missing, loaded.unexpected) == ((), ())
    for name, value in second.named_parameters():
        if "attn2" not in name:
            assert torch.equal(value, first.get_parameter(name).bfloat16().float()), name


def test_what_is_missing_and_what_is_not_used_is_said(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "ltx")
    made = transformer()
    state = {name: value.contiguous() for name, value in made.state_dict().items() if not name.startswith("proj_out")}
    state |= {"action_blocks.0.ff.weight": torch.zeros(2), "action_blocks.1.ff.weight": torch.zeros(2)}
    shutil.rmtree(folder / "transformer")
    made.save_config(folder / "transformer")
    safetensors_torch.save_file(state, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    loaded = load_world(LtxWorldModel(THREE), folder)
    assert set(loaded.missing) == {"view_embed", "proj_out.weight", "proj_out.bias", "view_ada.1.weight", "view_ada.1.bias"}
    assert loaded.unexpected == ("action_blocks.0.ff.weight", "action_blocks.1.ff.weight")
    assert "not used: action_blocks.*.ff.weight" in str(loaded) and "proj_out.bias" in str(loaded)


def test_another_shape_is_refused_and_named(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "ltx")
    state = transformer().state_dict()
    state["transformer_blocks.2.attn1.to_k.weight"] = torch.zeros(48, 40)
    for path in (folder / "transformer").glob("*.safetensors*"):
        path.unlink()
    safetensors_torch.save_file(state, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    world = LtxWorldModel(SMALL)
    before = [p.clone() for p in world.parameters()]
    with pytest.raises(PretrainedError, match=r"transformer_blocks\.2\.attn1\.to_k\.weight \[48, 40\] there, \[48, 48\] here"):
        load_world(world, folder)
    assert all(torch.equal(a, b) for a, b in zip(before, world.parameters(), strict=True))


def test_another_layout_is_refused_and_named(published: Path, tmp_path: Path) -> None:
    with pytest.raises(PretrainedError, match="num_layers 4, the preset has 6"):
        load_world(LtxWorldModel(replace(SMALL, blocks=6)), published)
    with pytest.raises(PretrainedError, match="num_attention_heads 4, the preset has 2; attention_head_dim 12, the preset has 24"):
        load_world(LtxWorldModel(replace(SMALL, world_heads=2)), published)
    with pytest.raises(PretrainedError, match="spatial compression is 8, the preset's is 16"):
        load_autoencoder(replace(SMALL, latent_size=2), published)
    with pytest.raises(PretrainedError, match="latent_channels 4, the preset has 8"):
        load_autoencoder(replace(SMALL, latent_channels=8), published)


def test_folders_that_are_no_weights(published: Path, tmp_path: Path) -> None:
    world = LtxWorldModel(SMALL)
    with pytest.raises(PretrainedError, match=r"no config\.json of a LTXVideoTransformer3DModel in .*nowhere"):
        load_world(world, tmp_path / "nowhere")
    folder = shutil.copytree(published, tmp_path / "ltx")
    shard = sorted((folder / "transformer").glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(PretrainedError, match=f"{shard.name} cannot be read"):
        load_world(world, folder)
    shard.unlink()
    with pytest.raises(PretrainedError, match=f"index.json lists {shard.name}, which is not there"):
        load_world(world, folder)
    shutil.rmtree(folder / "transformer")
    transformer().save_config(folder / "transformer")
    with pytest.raises(PretrainedError, match=r"no diffusion_pytorch_model\.safetensors in"):
        load_world(world, folder)
    safetensors_torch.save_file({"x": torch.zeros(1)}, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(PretrainedError, match="has 1 tensors, none of them is a world model's"):
        load_world(world, folder)
    (folder / "transformer" / "config.json").write_text("{")
    with pytest.raises(PretrainedError, match=r"config\.json cannot be read"):
        load_world(world, folder)
    state = {name: value for name, value in vae().state_dict().items() if "conv_out" not in name}
    safetensors_torch.save_file(state, folder / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(PretrainedError, match=r"vae lacks .*conv_out"):
        load_autoencoder(SMALL, folder)


def test_an_empty_prompt_of_another_text_encoder_is_refused(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "ltx")
    safetensors_torch.save_file({"embedding": torch.randn(1, 7)}, folder / "empty_prompt.safetensors")
    with pytest.raises(PretrainedError, match="embedding has 7 values, 24 are needed"):
        load_world(LtxWorldModel(SMALL), folder)


def test_an_autoencoder_with_timesteps_decodes(tmp_path: Path) -> None:
    """As LTX-Video has had from 0.9.1 on."""
    vae(timestep_conditioning=True).save_pretrained(tmp_path / "vae")
    autoencoder = LtxAutoencoder(SMALL, load_autoencoder(SMALL, tmp_path))
    assert autoencoder.decode(torch.randn(2, 4, 4, 4)).shape == (2, 3, 32, 32)


def test_the_command_trains_on_published_weights(
    episodes: dict[int, Episodes], published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "paper", THREE)
    arguments = [str(episodes[1].shards[0].parent), str(tmp_path / "run"), "--preset", "paper", "--views", "1", "--batch", "2",
                 "--pretrained", str(published), "--stage1-minutes", "0.01", "--stage2-minutes", "0.01"]  # fmt: skip
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "parameters of the world model loaded; text: the empty prompt's" in result.output
    state = load(tmp_path / "run" / "stage2.pt")
    assert state["config"]["views"] == 1 and state["config"]["architecture"] == "ltx" and state["steps"] > 0
    build_system(ModelConfig.from_dict(state["config"]), published).load_state_dict(state["average"])
    assert (tmp_path / "run" / "stage1.png").stat().st_size > 1000


def test_published_weights_for_another_architecture(published: Path) -> None:
    with pytest.raises(ConfigError, match="for architecture 'ltx', this configuration's is 'compact'"):
        build_system(PRESETS["tiny"], published)
    assert json.loads((published / "transformer" / "config.json").read_text())["_class_name"] == "LTXVideoTransformer3DModel"
