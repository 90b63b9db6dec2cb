"""The bibliography: the papers that rows are keyed by, as data.

Titles and names are in BibTeX's notation: braces keep capitals, names are "Family, Given" and joined by "and".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

_SKIPPED = {"a", "an", "the", "on", "in", "of", "for", "to", "is"}
"""Words that a key does not take from a title."""


@dataclass(frozen=True)
class Paper:
    """What a reference says of a paper besides its number."""

    title: str
    author: str
    year: int
    journal: str = ""
    booktitle: str = ""
    """The conference."""
    series: str = ""
    volume: str = ""
    number: str = ""
    pages: str = ""
    howpublished: str = ""
    doi: str = ""
    url: str = ""

    @property
    def key(self) -> str:
        """``shao2024deepseekmath``: the first author, the year, the title's first word that says something."""
        family = self.author.partition(" and ")[0].partition(",")[0]
        words = (_letters(word) for word in self.title.split())
        return f"{_letters(family)}{self.year}{next(word for word in words if word not in _SKIPPED)}"


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def bibtex(paper: str) -> str:
    """The BibTeX entry of a paper by its number, such as ``arXiv:2402.03300``."""
    entry = PAPERS[paper]
    kind = "article" if entry.journal else "inproceedings" if entry.booktitle else "misc"
    values = {field.name: str(getattr(entry, field.name)) for field in fields(entry)}
    scheme, _, number = paper.partition(":")
    match scheme:
        case "arXiv":
            values |= {"eprint": number, "archivePrefix": "arXiv"}
        case "doi":
            values["doi"] = number
        case _:
            values["url"] = paper
    rows = (f"  {name} = {{{value}}}," for name, value in values.items() if value)
    return "\n".join([f"@{kind}{{{entry.key},", *rows, "}"])


PAPERS: dict[str, Paper] = {
    "arXiv:2203.02155": Paper(
        "Training Language Models to Follow Instructions with Human Feedback",
        "Ouyang, Long and Wu, Jeff and Jiang, Xu and Almeida, Diogo and Wainwright, Carroll L. and Mishkin, Pamela and Zhang, "
        "Chong and Agarwal, Sandhini and Slama, Katarina and Ray, Alex and Schulman, John and Hilton, Jacob and Kelton, Fraser "
        "and Miller, Luke and Simens, Maddie and Askell, Amanda and Welinder, Peter and Christiano, Paul and Leike, Jan and "
        "Lowe, Ryan",
        2022,
        booktitle="Advances in Neural Information Processing Systems",
    ),
    "arXiv:2508.05629": Paper(
        "On the Generalization of {SFT}: A Reinforcement Learning Perspective with Reward Rectification",
        "Wu, Yongliang and Zhou, Yizhou and Ziheng, Zhou and Peng, Yingzhe and Ye, Xinyu and Hu, Xinting and Zhu, Wenbo and "
        "Qi, Lu and Yang, Ming-Hsuan and Yang, Xu",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2308.01825": Paper(
        "Scaling Relationship on Learning Mathematical Reasoning with Large Language Models",
        "Yuan, Zheng and Yuan, Hongyi and Li, Chengpeng and Dong, Guanting and Lu, Keming and Tan, Chuanqi and Zhou, Chang and "
        "Zhou, Jingren",
        2023,
    ),
    "doi:10.1007/BF00992696": Paper(
        "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
        "Williams, Ronald J.",
        1992,
        journal="Machine Learning",
        volume="8",
        number="3--4",
        pages="229--256",
    ),
    "arXiv:cs/0204043": Paper(
        "Learning from Scarce Experience",
        "Peshkin, Leonid and Shelton, Christian R.",
        2002,
        booktitle="International Conference on Machine Learning",
        pages="498--505",
    ),
    "arXiv:2501.03262": Paper(
        "{REINFORCE++}: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization",
        "Hu, Jian and Liu, Jason Klein and Xu, Haotian and Shen, Wei",
        2025,
    ),
    "arXiv:2402.14740": Paper(
        "Back to Basics: Revisiting {REINFORCE}-Style Optimization for Learning from Human Feedback in {LLMs}",
        r"Ahmadian, Arash and Cremer, Chris and Gall{\'e}, Matthias and Fadaee, Marzieh and Kreutzer, Julia and Pietquin, "
        r"Olivier and {\"U}st{\"u}n, Ahmet and Hooker, Sara",
        2024,
        booktitle="Annual Meeting of the Association for Computational Linguistics",
    ),
    "arXiv:2310.10505": Paper(
        "{ReMax}: A Simple, Effective, and Efficient Reinforcement Learning Method for Aligning Large Language Models",
        "Li, Ziniu and Xu, Tian and Zhang, Yushun and Lin, Zhihang and Yu, Yang and Sun, Ruoyu and Luo, Zhi-Quan",
        2024,
        booktitle="International Conference on Machine Learning",
    ),
    "arXiv:2505.23585": Paper(
        "On-Policy {RL} with Optimal Reward Baseline",
        "Hao, Yaru and Dong, Li and Wu, Xun and Huang, Shaohan and Chi, Zewen and Wei, Furu",
        2025,
    ),
    "arXiv:2511.23310": Paper(
        "{OBLR-PO}: A Theoretical Framework for Stable Reinforcement Learning",
        "Huang, Zixun and Sheng, Jiayi and Zheng, Zeyu",
        2025,
    ),
    "arXiv:2504.02546": Paper(
        "{GPG}: A Simple and Strong Reinforcement Learning Baseline for Model Reasoning",
        "Chu, Xiangxiang and Huang, Hailang and Zhang, Xiao and Wei, Fei and Wang, Yong",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2509.02544": Paper(
        "{UI-TARS-2} Technical Report: Advancing {GUI} Agent with Multi-Turn Reinforcement Learning",
        "Wang, Haoming and Zou, Haoyang and Song, Huatong and Feng, Jiazhan and Fang, Junjie and Lu, Junting and others",
        2025,
    ),
    "arXiv:2509.15207": Paper(
        "{FlowRL}: Matching Reward Distributions for {LLM} Reasoning",
        "Zhu, Xuekai and Cheng, Daixuan and Zhang, Dinghuai and Li, Hengli and Zhang, Kaiyan and Jiang, Che and Sun, Youbang "
        "and Hua, Ermo and Zuo, Yuxin and Lv, Xingtai and Zhang, Qizheng and Chen, Lin and Shao, Fanghao and Xue, Bo and Song, "
        "Yunchong and Yang, Zhenjie and Cui, Ganqu and Ding, Ning and Gao, Jianfeng and Liu, Xiaodong and Zhou, Bowen and Mei, "
        "Hongyuan and Lin, Zhouhan",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2602.02710": Paper(
        "Maximum Likelihood Reinforcement Learning",
        "Tajwar, Fahim and Zeng, Guanning and Zhou, Yueer and Song, Yuda and Arora, Daman and Jiang, Yiding and Schneider, "
        "Jeff and Salakhutdinov, Ruslan and Feng, Haiwen and Zanette, Andrea",
        2026,
    ),
    "arXiv:2510.20150": Paper(
        "{Rank-GRPO}: Training {LLM}-Based Conversational Recommender Systems with Reinforcement Learning",
        "Zhu, Yaochen and Steck, Harald and Liang, Dawen and He, Yinhan and Ostuni, Vito and Li, Jundong and Kallus, Nathan",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2509.19199": Paper(
        "Agentic Reinforcement Learning with Implicit Step Rewards",
        "Liu, Xiaoqian and Wang, Ke and Wu, Yuchuan and Huang, Fei and Li, Yongbin and Zhang, Junge and Jiao, Jianbin",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2505.19590": Paper(
        "Learning to Reason without External Rewards",
        "Zhao, Xuandong and Kang, Zhewei and Feng, Aosong and Levine, Sergey and Song, Dawn",
        2025,
    ),
    "arXiv:2505.15134": Paper(
        "The Unreasonable Effectiveness of Entropy Minimization in {LLM} Reasoning",
        "Agarwal, Shivam and Zhang, Zimin and Yuan, Lifan and Han, Jiawei and Peng, Hao",
        2025,
    ),
    "arXiv:2402.03300": Paper(
        "{DeepSeekMath}: Pushing the Limits of Mathematical Reasoning in Open Language Models",
        "Shao, Zhihong and Wang, Peiyi and Zhu, Qihao and Xu, Runxin and Song, Junxiao and Bi, Xiao and Zhang, Haowei and "
        "Zhang, Mingchuan and Li, Y. K. and Wu, Y. and Guo, Daya",
        2024,
    ),
    "arXiv:2508.04389": Paper(
        "{GuirlVG}: Incentivize {GUI} Visual Grounding via Empirical Exploration on Reinforcement Learning",
        "Kang, Weitai and Lei, Bin and Liu, Gaowen and Ding, Caiwen and Yan, Yan",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2510.03865": Paper(
        "Unlocking Reasoning Capabilities in {LLMs} via Reinforcement Learning Exploration",
        "Deng, Wenhao and Wei, Long and Yu, Chenglei and Wu, Tailin",
        2025,
    ),
    "arXiv:2510.02230": Paper(
        "The Reasoning Boundary Paradox: How Reinforcement Learning Constrains Language Models",
        "Nguyen, Phuc Minh and La, Chinh D. and Nguyen, Duy M. H. and Chawla, Nitesh V. and Nguyen, Binh T. and Doan, Khoa D.",
        2025,
    ),
    "arXiv:2603.19470": Paper(
        "Adaptive Layerwise Perturbation: Unifying Off-Policy Corrections for {LLM} {RL}",
        "Ye, Chenlu and Zhang, Xuanchang and Hao, Yifan and Yu, Zhou and Zhang, Ziji and Gullapalli, Abhinav and Chen, Hao and "
        "Huang, Jing and Zhang, Tong",
        2026,
    ),
    "arXiv:2503.20783": Paper(
        "Understanding {R1-Zero}-Like Training: A Critical Perspective",
        "Liu, Zichen and Chen, Changyu and Li, Wenjun and Qi, Penghui and Pang, Tianyu and Du, Chao and Lee, Wee Sun and Lin, "
        "Min",
        2025,
        booktitle="Conference on Language Modeling",
    ),
    "arXiv:2506.02864": Paper(
        "{BNPO}: Beta Normalization Policy Optimization",
        "Xiao, Changyi and Zhang, Mengdi and Cao, Yixin",
        2025,
    ),
    "arXiv:2508.08221": Paper(
        "Part {I}: Tricks or Traps? {A} Deep Dive into {RL} for {LLM} Reasoning",
        "Liu, Zihe and Liu, Jiashun and He, Yancheng and Wang, Weixun and Liu, Jiaheng and Pan, Ling and Hu, Xinyu and Xiong, "
        "Shaopan and Huang, Ju and Hu, Jian and Huang, Shengyi and Yang, Siran and Wang, Jiamang and Su, Wenbo and Zheng, Bo",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2512.12967": Paper(
        "{QwenLong-L1.5}: Post-Training Recipe for Long-Context Reasoning and Memory Management",
        "Shen, Weizhou and Yang, Ziyi and Li, Chenliang and Lu, Zhiyuan and Peng, Miao and Sun, Huashan and Shi, Yingcheng and "
        "Liao, Shengyi and Lai, Shaopeng and Zhang, Bo and Liu, Dayiheng and Huang, Fei and Zhou, Jingren and Yan, Ming",
        2025,
    ),
    "arXiv:2601.05242": Paper(
        "{GDPO}: Group Reward-Decoupled Normalization Policy Optimization for Multi-Reward {RL} Optimization",
        "Liu, Shih-Yang and Dong, Xin and Lu, Ximing and Diao, Shizhe and Belcak, Peter and Liu, Mingjie and Chen, Min-Hung and "
        "Yin, Hongxu and Wang, Yu-Chiang Frank and Cheng, Kwang-Ting and Choi, Yejin and Kautz, Jan and Molchanov, Pavlo",
        2026,
    ),
    "arXiv:2503.14476": Paper(
        "{DAPO}: An Open-Source {LLM} Reinforcement Learning System at Scale",
        "Yu, Qiying and Zhang, Zheng and Zhu, Ruofei and Yuan, Yufeng and Zuo, Xiaochen and Yue, Yu and Fan, Tiantian and Liu, "
        "Gaohong and Liu, Lingjun and Liu, Xin and Lin, Haibin and Lin, Zhiqi and Ma, Bole and Sheng, Guangming and Tong, "
        "Yuxuan and Zhang, Chi and Zhang, Mofan and Zhang, Wang and Zhu, Hang and Zhu, Jinhua and Chen, Jiaze and Chen, "
        "Jiangjie and Wang, Chengyi and Yu, Hongli and Dai, Weinan and Song, Yuxuan and Wei, Xiangpeng and Zhou, Hao and Liu, "
        "Jingjing and Ma, Wei-Ying and Zhang, Ya-Qin and Yan, Lin and Qiao, Mu and Wu, Yonghui and Wang, Mingxuan",
        2025,
        booktitle="Advances in Neural Information Processing Systems",
    ),
    "arXiv:1912.09729": Paper(
        "Mastering Complex Control in {MOBA} Games with Deep Reinforcement Learning",
        "Ye, Deheng and Liu, Zhao and Sun, Mingfei and Shi, Bei and Zhao, Peilin and Wu, Hao and Yu, Hongsheng and Yang, "
        "Shaojie and Wu, Xipeng and Guo, Qingwei and Chen, Qiaobo and Yin, Yinyuting and Zhang, Hao and Shi, Tengfei and Wang, "
        "Liang and Fu, Qiang and Yang, Wei and Huang, Lanxiao",
        2020,
        booktitle="AAAI Conference on Artificial Intelligence",
        volume="34",
        number="4",
        pages="6672--6679",
    ),
    "arXiv:2507.18071": Paper(
        "Group Sequence Policy Optimization",
        "Zheng, Chujie and Liu, Shixuan and Li, Mingze and Chen, Xiong-Hui and Yu, Bowen and Gao, Chang and Dang, Kai and Liu, "
        "Yuqiong and Men, Rui and Yang, An and Zhou, Jingren and Lin, Junyang",
        2025,
    ),
    "arXiv:2602.05261": Paper(
        "Length-Unbiased Sequence Policy Optimization: Revealing and Controlling Response Length Variation in {RLVR}",
        "Liu, Fanfan and Yin, Youyang and Shi, Peng and Yang, Siqi and Zeng, Zhixiong and Qiu, Haibo",
        2026,
    ),
    "arXiv:2507.20673": Paper(
        "Geometric-Mean Policy Optimization",
        "Zhao, Yuzhong and Liu, Yue and Liu, Junpeng and Chen, Jingye and Wu, Xun and Hao, Yaru and Lv, Tengchao and Huang, "
        "Shaohan and Cui, Lei and Ye, Qixiang and Wan, Fang and Wei, Furu",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2508.09726": Paper(
        "Sample More to Think Less: Group Filtered Policy Optimization for Concise Reasoning",
        "Shrivastava, Vaishnavi and Awadallah, Ahmed and Balachandran, Vidhisha and Garg, Shivam and Behl, Harkirat and "
        "Papailiopoulos, Dimitris",
        2025,
    ),
    "arXiv:2505.18086": Paper(
        "Stable Reinforcement Learning for Efficient Reasoning",
        "Dai, Muzhi and Liu, Shixuan and Si, Qingyi",
        2025,
    ),
    "arXiv:2506.13585": Paper(
        "{MiniMax-M1}: Scaling Test-Time Compute Efficiently with Lightning Attention",
        "{MiniMax}",
        2025,
    ),
    "arXiv:2511.20347": Paper(
        "Soft Adaptive Policy Optimization",
        "Gao, Chang and Zheng, Chujie and Chen, Xiong-Hui and Dang, Kai and Liu, Shixuan and Yu, Bowen and Yang, An and Bai, "
        "Shuai and Zhou, Jingren and Lin, Junyang",
        2025,
    ),
    "arXiv:2603.16929": Paper(
        "{MHPO}: Modulated Hazard-aware Policy Optimization for Stable Reinforcement Learning",
        "Wang, Hongjun and Liu, Wei and Gu, Weibo and Sun, Xing and Han, Kai",
        2026,
    ),
    "arXiv:2601.03320": Paper(
        "Ratio-Variance Regularized Policy Optimization for Efficient {LLM} Fine-tuning",
        "Luo, Yu and Han, Shuo and Hu, Yihan and Li, Dong and Hao, Jianye",
        2026,
    ),
    "arXiv:2506.14731": Paper(
        "{Ring-lite}: Scalable Reasoning via {C3PO}-Stabilized Reinforcement Learning for {LLMs}",
        "{Ling Team}",
        2025,
    ),
    "arXiv:2509.20712": Paper(
        "{CE-GPPO}: Coordinating Entropy via Gradient-Preserving Clipping Policy Optimization in Reinforcement Learning",
        "Su, Zhenpeng and Pan, Leiyu and Lv, Minxuan and Li, Yuntao and Hu, Wenping and Zhang, Fuzheng and Gai, Kun and Zhou, "
        "Guorui",
        2025,
    ),
    "arXiv:2505.22617": Paper(
        "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
        "Cui, Ganqu and Zhang, Yuchen and Chen, Jiacheng and Yuan, Lifan and Wang, Zhi and Zuo, Yuxin and Li, Haozhan and Fan, "
        "Yuchen and Chen, Huayu and Chen, Weize and Liu, Zhiyuan and Peng, Hao and Bai, Lei and Ouyang, Wanli and Cheng, Yu "
        "and Zhou, Bowen and Ding, Ning",
        2025,
    ),
    "https://fengyao.notion.site/off-policy-rl": Paper(
        "Your Efficient {RL} Framework Secretly Brings You Off-Policy {RL} Training",
        "Yao, Feng and Liu, Liyuan and Zhang, Dinghuai and Dong, Chengyu and Shang, Jingbo and Gao, Jianfeng",
        2025,
        howpublished="Blog post",
    ),
    "https://richardli.xyz/rl-collapse": Paper(
        "When Speed Kills Stability: Demystifying {RL} Collapse from the Training-Inference Mismatch",
        "Liu, Jiacai and Li, Yingru and Fu, Yuqian and Wang, Jiawei and Liu, Qian and Shen, Yu",
        2025,
        howpublished="Blog post",
    ),
    "arXiv:2510.18855": Paper(
        "Every Step Evolves: Scaling Reinforcement Learning for Trillion-Scale Thinking Model",
        "{Ling Team}",
        2025,
    ),
    "arXiv:2110.00641": Paper(
        "Batch size-invariance for policy optimization",
        "Hilton, Jacob and Cobbe, Karl and Schulman, John",
        2022,
        booktitle="Advances in Neural Information Processing Systems",
    ),
    "arXiv:2505.24298": Paper(
        "{AReaL}: A Large-Scale Asynchronous Reinforcement Learning System for Language Reasoning",
        "Fu, Wei and Gao, Jiaxuan and Shen, Xujie and Zhu, Chen and Mei, Zhiyu and He, Chuyi and Xu, Shusheng and Wei, Guo and "
        "Mei, Jun and Wang, Jiashu and Yang, Tongkai and Yuan, Binhang and Wu, Yi",
        2025,
    ),
    "arXiv:2512.01374": Paper(
        "Stabilizing Reinforcement Learning with {LLMs}: Formulation and Practices",
        "Zheng, Chujie and Dang, Kai and Yu, Bowen and Li, Mingze and Jiang, Huiqiang and Lin, Junrong and Liu, Yuqiong and "
        "Lin, Hao and Wu, Chencan and Hu, Feng and Yang, An and Zhou, Jingren and Lin, Junyang",
        2025,
    ),
    "arXiv:2603.21065": Paper(
        "{LongCat-Flash-Prover}: Advancing Native Formal Reasoning via Agentic Tool-Integrated Reinforcement Learning",
        "Wang, Jianing and Zhang, Jianfei and Guo, Qi and Guo, Linsen and Li, Rumei and Zhang, Chao and Peng, Chong and Wang, "
        "Cunguang and Zhao, Dengchang and Shi, Jiarong and Wang, Jingang and Feng, Liulin and Shen, Mengxia and Li, Qi and An, "
        "Shengnan and Wang, Shun and Shi, Wei and Xi, Xiangyu and Li, Xiaoyu and Cao, Xuezhi and Lu, Yi and Zhao, Yunke and "
        "Chen, Zhengyu and Lin, Zhimin and Wang, Wei and Pei, Peng and Cai, Xunliang",
        2026,
    ),
    "arXiv:2602.09443": Paper(
        "{P1-VL}: Bridging Visual Perception and Scientific Reasoning in Physics Olympiads",
        "Luo, Yun and Wang, Futing and Cheng, Qianjia and Yu, Fangchen and Lei, Haodi and Yan, Jianhao and Li, Chenxi and Chen, "
        "Jiacheng and Zhao, Yufeng and Wan, Haiyuan and Zhang, Yuchen and Zheng, Shenghe and Yao, Junchi and Zhang, Qingyang "
        "and He, Haonan and Zeng, Wenxuan and Sheng, Li and Xie, Chengxing and Zuo, Yuxin and Li, Yizhuo and Wu, Yulun and "
        "Huang, Rui and Zhou, Dongzhan and Chen, Kai and Qiao, Yu and Bai, Lei and Cheng, Yu and Ding, Ning and Zhou, Bowen "
        "and Ye, Peng and Cui, Ganqu",
        2026,
    ),
    "arXiv:2601.22718": Paper(
        "A Step Back: Prefix Importance Ratio Stabilizes Policy Optimization",
        "Lei, Shiye and Cheng, Zhihao and Tao, Dacheng",
        2026,
    ),
    "arXiv:2510.18927": Paper(
        "{BAPO}: Stabilizing Off-Policy Reinforcement Learning for {LLMs} via Balanced Policy Optimization with Adaptive "
        "Clipping",
        "Xi, Zhiheng and Guo, Xin and Nan, Yang and Zhou, Enyu and Shen, Junrui and Chen, Wenxiang and Liu, Jiaqi and Huang, "
        "Jixuan and Zhang, Zhihao and Guo, Honglin and Deng, Xun and Lei, Zhikai and Zheng, Miao and Wang, Guoteng and Zhang, "
        "Shuo and Sun, Peng and Zheng, Rui and Yan, Hang and Gui, Tao and Zhang, Qi and Huang, Xuanjing",
        2025,
    ),
    "arXiv:2503.14286": Paper(
        "Tapered Off-Policy {REINFORCE}: Stable and efficient reinforcement learning for {LLM}s",
        r"Le Roux, Nicolas and Bellemare, Marc G. and Lebensold, Jonathan and Bergeron, Arnaud and Greaves, Joshua and "
        r"Fr{\'e}chette, Alex and Pelletier, Carolyne and Thibodeau-Laufer, Eric and Toth, S{\'a}ndor and Work, Sam",
        2025,
    ),
    "arXiv:2602.04879": Paper(
        "Rethinking the Trust Region in {LLM} Reinforcement Learning",
        "Qi, Penghui and Zhou, Xiangxin and Liu, Zichen and Pang, Tianyu and Du, Chao and Lin, Min and Lee, Wee Sun",
        2026,
        booktitle="International Conference on Machine Learning",
        series="Proceedings of Machine Learning Research",
        volume="306",
    ),
    "arXiv:1707.06347": Paper(
        "Proximal Policy Optimization Algorithms",
        "Schulman, John and Wolski, Filip and Dhariwal, Prafulla and Radford, Alec and Klimov, Oleg",
        2017,
    ),
    "arXiv:2504.05118": Paper(
        "{VAPO}: Efficient and Reliable Reinforcement Learning for Advanced Reasoning Tasks",
        "Yue, Yu and Yuan, Yufeng and Yu, Qiying and Zuo, Xiaochen and Zhu, Ruofei and Xu, Wenyuan and Chen, Jiaze and Wang, "
        "Chengyi and Fan, TianTian and Du, Zhengyin and Wei, Xiangpeng and Yu, Xiangyu and Liu, Gaohong and Liu, Juncai and "
        "Liu, Lingjun and Lin, Haibin and Lin, Zhiqi and Ma, Bole and Zhang, Chi and Zhang, Mofan and Zhang, Wang and Zhu, "
        "Hang and Zhang, Ru and Liu, Xin and Wang, Mingxuan and Wu, Yonghui and Yan, Lin",
        2025,
    ),
    "arXiv:2502.01456": Paper(
        "Process Reinforcement through Implicit Rewards",
        "Cui, Ganqu and Yuan, Lifan and Wang, Zefan and Wang, Hanbin and Zhang, Yuchen and Chen, Jiacheng and Li, Wendi and "
        "He, Bingxiang and Fan, Yuchen and Yu, Tianyu and Xu, Qixin and Chen, Weize and Yuan, Jiarui and Chen, Huayu and "
        "Zhang, Kaiyan and Lv, Xingtai and Wang, Shuo and Yao, Yuan and Han, Xu and Peng, Hao and Cheng, Yu and Liu, Zhiyuan "
        "and Sun, Maosong and Zhou, Bowen and Ding, Ning",
        2025,
    ),
    "arXiv:2412.01981": Paper(
        "Free Process Rewards without Process Labels",
        "Yuan, Lifan and Li, Wendi and Chen, Huayu and Cui, Ganqu and Ding, Ning and Zhang, Kaiyan and Zhou, Bowen and Liu, "
        "Zhiyuan and Peng, Hao",
        2025,
        booktitle="International Conference on Machine Learning",
        series="Proceedings of Machine Learning Research",
        volume="267",
        pages="73511--73525",
    ),
    "doi:10.64434/tml.20251026": Paper(
        "On-Policy Distillation",
        "Lu, Kevin and {Thinking Machines Lab}",
        2025,
        howpublished="Thinking Machines Lab: Connectionism",
        url="https://thinkingmachines.ai/blog/on-policy-distillation",
    ),
    "arXiv:2504.14945": Paper(
        "Learning to Reason under Off-Policy Guidance",
        "Yan, Jianhao and Li, Yafu and Hu, Zican and Wang, Zhi and Cui, Ganqu and Qu, Xiaoye and Cheng, Yu and Zhang, Yue",
        2025,
        booktitle="Advances in Neural Information Processing Systems",
    ),
    "arXiv:2506.19767": Paper(
        "{SRFT}: A Single-Stage Method with Supervised and Reinforcement Fine-Tuning for Reasoning",
        "Fu, Yuqian and Chen, Tinghong and Chai, Jiajun and Wang, Xihuai and Tu, Songjun and Yin, Guojun and Lin, Wei and "
        "Zhang, Qichao and Zhu, Yuanheng and Zhao, Dongbin",
        2026,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2602.00400": Paper(
        "{KEPO}: Knowledge-Enhanced Preference Optimization for Reinforcement Learning with Reasoning",
        "Yang, Fan and Meng, Rui and Di Qi, Trudi and Ezzati, Ali and Wen, Yuxin",
        2026,
    ),
    "arXiv:2601.03823": Paper(
        "Step Potential Advantage Estimation: Harnessing Intermediate Confidence and Correctness for Efficient Mathematical "
        "Reasoning",
        "Wu, Fei and Zhang, Zhenrong and Chang, Qikai and Zhang, Jianshu and Liu, Quan and Du, Jun",
        2026,
    ),
    "arXiv:2509.22601": Paper(
        "Learn the Ropes, Then Trust the Wins: Self-imitation with Progressive Exploration for Agentic Reinforcement Learning",
        "Qin, Yulei and Tan, Xiaoyu and He, Zhengbao and Li, Gang and Lin, Haojia and Li, Zongyi and Xu, Zihan and Shi, Yuchen "
        "and Cai, Siqi and Rui, Renting and Cai, Shaofei and Cai, Yuzheng and Zhang, Xuan and Ye, Sheng and Li, Ke and Sun, Xing",
        2025,
    ),
    "arXiv:2509.04419": Paper(
        "Towards a Unified View of Large Language Model Post-Training",
        "Lv, Xingtai and Zuo, Yuxin and Sun, Youbang and Liu, Hongyi and Wei, Yuntian and Chen, Zhekai and He, Lixuan and Zhu, "
        "Xuekai and Zhang, Kaiyan and Wang, Bingning and Ding, Ning and Zhou, Bowen",
        2025,
    ),
    "arXiv:2305.14718": Paper(
        "Leftover Lunch: Advantage-based Offline Reinforcement Learning for Language Models",
        "Baheti, Ashutosh and Lu, Ximing and Brahman, Faeze and Le Bras, Ronan and Sap, Maarten and Riedl, Mark",
        2024,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2305.18290": Paper(
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        "Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Manning, Christopher D. and Ermon, Stefano and Finn, Chelsea",
        2023,
        booktitle="Advances in Neural Information Processing Systems",
    ),
    "arXiv:2310.12036": Paper(
        "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        r"Gheshlaghi Azar, Mohammad and Rowland, Mark and Piot, Bilal and Guo, Daniel and Calandriello, Daniele and Valko, "
        r"Michal and Munos, R{\'e}mi",
        2024,
        booktitle="International Conference on Artificial Intelligence and Statistics",
    ),
    "arXiv:2405.14734": Paper(
        "{SimPO}: Simple Preference Optimization with a Reference-Free Reward",
        "Meng, Yu and Xia, Mengzhou and Chen, Danqi",
        2024,
        booktitle="Advances in Neural Information Processing Systems",
    ),
    "arXiv:2403.07691": Paper(
        "{ORPO}: Monolithic Preference Optimization without Reference Model",
        "Hong, Jiwoo and Lee, Noah and Thorne, James",
        2024,
        booktitle="Conference on Empirical Methods in Natural Language Processing",
        pages="11170--11189",
        doi="10.18653/v1/2024.emnlp-main.626",
    ),
    "arXiv:2305.10425": Paper(
        "{SLiC-HF}: Sequence Likelihood Calibration with Human Feedback",
        "Zhao, Yao and Joshi, Rishabh and Liu, Tianqi and Khalman, Misha and Saleh, Mohammad and Liu, Peter J.",
        2023,
    ),
    "arXiv:2405.19320": Paper(
        "Value-Incentivized Preference Optimization: A Unified Approach to Online and Offline {RLHF}",
        "Cen, Shicong and Mei, Jincheng and Goshvadi, Katayoon and Dai, Hanjun and Yang, Tong and Yang, Sherry and Schuurmans, "
        "Dale and Chi, Yuejie and Dai, Bo",
        2025,
        booktitle="International Conference on Learning Representations",
    ),
    "arXiv:2402.01306": Paper(
        "{KTO}: Model Alignment as Prospect Theoretic Optimization",
        "Ethayarajh, Kawin and Xu, Winnie and Muennighoff, Niklas and Jurafsky, Dan and Kiela, Douwe",
        2024,
        booktitle="International Conference on Machine Learning",
    ),
}
"""Every paper by its number, as rows give it."""
