"""The words around an option's letter, in many languages: they announce it, join it to another, deny or confirm it.

All are parts of regular expressions, for patterns that ignore case.
"""

from __future__ import annotations

import regex

NOUN = (
    r"(?:options?|choices?|alternatives?|letters?|answers?|number|no\.|option\s+letter|opción|opciones"
    r"|opcion|opção|opções|alternativa"
    r"|opzione|lettera|lettre|proposition|letra|buchstabe|antwort|alternatief|optie|svar|вариант\w*"
    r"|букв\w*|пункт\w*|відповід\w*"
    r"|opcj\w|możliwość|možnost|pilihan|opsi|huruf|phương án|đáp án|câu|seçenek|şık|विकल्प|ऑप्शन|বিকল্প"
    r"|الخيار|خيار|الحرف|گزینه"
    r"|אפשרות|选项|選項|選択肢|选择|選擇|第|项|項|記号|보기|선택지|ข้อ|ตัวเลือก)"
)
#: Words that may stand between an announcement and the label.
FILLERS = (
    rf"(?:(?:{NOUN}|the|is|are|be|clearly|definitely|probably|most likely|likely|therefore|thus|simply"
    rf"|just|both|only|all of|la|le|les|los"
    r"|las|el|il|lo|der|die|das|de|den|det|les|as|os|l'|is|given by|indeed|actually|surely|certainly"
    r"|would be|must be|should be"
    r"|option\s+letter|choice)(?![\p{Latin}\p{M}\p{N}])|[\s:=>\-*_\"'`#~$「『【《<“]|\\[(\[]|,)+"
)
FILLER = regex.compile(FILLERS, regex.IGNORECASE)
OPEN, CLOSE = r"[(\[{「【『《<]{0,3}", r"[)\]}」】』》>]{0,3}"
OR = (
    r"and/or|or|oder|ou|o|або|или|veya|ya da|atau|lub|of|eller|hoặc|nebo|vagy|vai|tai"
    r"|或者?|还是|または|もしくは|か|또는|이나|أو|או"
    r"|या|অথবা|หรือ|/|\||vs\.?"
)
AND = r"and|und|et|y|e|и|і|ve|dan|og|och|en|i|a|și|és|та|及|和|与|與|以及|と|や|과|와|و|और|এবং|และ|và|ו|&|\+"
WHOLE = r"(?!(?<=\p{Latin})\p{Latin})"
BECAUSE = (
    r"because|since|as|for|due|given|by|if|when|where|not|but|and|or|rather|instead|weil|da|denn|porque"
    r"|ya|parce|car|perché|poiché"
    r"|pois|потому|так|omdat|ponieważ|çünkü|karena|vì"
)
NOT = (
    r"(?:not|n't|never|nor|neither|nicht|kein\w*|pas|non|no es|no|não|не|nie|inte|ikke|niet|değil|bukan"
    r"|không phải(?: là)?|不是|不选|不選|并非|ليس|לא|नहीं"
    r"|rather than|instead of|unlike|except|eliminate|exclude|ruled? out|rejects?|anstatt|statt"
    r"|au lieu de|en vez de|而不是)"
)
BUT = (
    r"[\s,;.:\-]*(?:but(?: rather)?|rather|it'?s|it is|instead|sondern|mais|sino|ma|mas|а|но|però|fakat"
    r"|tetapi|mà là|而是|是|で|でなく)?[\s,:]*"
)
#: After a label: it is not the answer.
DENIED = regex.compile(
    r"[)\].\"'*]*\s*(?:ではな[くい]|じゃな[くい]|[이가] 아니[라며다고]|不对|不對|不正确|错误?|"
    r"(?:(?:is|are|was|were|would be|can be|seems|looks)(?: (?:both|all|clearly|also|therefore|thus"
    r"|obviously|simply|just|definitely))*"
    r" (?:not|wrong|incorrect|false|too|ruled|eliminated|excluded|out|impossible|un\w+|in\w+)|isn't"
    r"|aren't|can't|cannot|ist (?:nicht|falsch)"
    r"|sind (?:nicht|falsch)|no es|est fausse?|n'est pas|es (?:falsa|incorrecta)|non è|não é|не\b"
    r"|неверн\w*|неправильн\w*))",
    regex.IGNORECASE,
)
#: A model that corrects itself gives the answer that counts afterwards.
CORRECTION = (
    r"\b(?:wait|actually|i mean|correction|sorry|scratch that|on second thought|hold on|make that|no, (?:it's"
    r"|it is|the))\b"
)
#: Before a single letter: it is a name, not an option.
NAMED = regex.compile(
    r"(?:vitamin|hepatitis|influenza|type|typ|group|gruppe|groupe|class|figure|fig\.?|table|appendix|plan"
    r"|grade|factor|protein|category|phase"
    r"|stage|team|company|school|section|line|angle|vertex|city|town|train|urn|bag|jar|person|student"
    r"|model|chromosome|compound|element|gas"
    r"|reaction|mr\.?|mrs\.?|dr\.?|equation|sample|exhibit|schedule|part|planet|machine|pump|pipe|strep"
    r"|immunoglobulin|\d|°)\s*$",
    regex.IGNORECASE,
)
CHOOSE = (
    r"(?:i(?:'d|'ll|'m)?[ ]+(?:would[ ]+|will[ ]+|am[ ]+)?(?:choose|chose|pick|picked|select"
    r"|go(?:ing)?[ ]+with|opt(?:ing)?[ ]+for|say|answer|guess|vote[ ]+for)"
    r"|(?:we|let's)[ ]+(?:choose|pick|select|go[ ]+with)|(?:my|best)[ ]+guess[ ]+is|(?:it|that"
    r"|this)(?:[ ]+must[ ]+be|[ ]+has[ ]+to[ ]+be|[ ]+should[ ]+be|'s|[ ]+is|[ ]+would[ ]+be)"
    r"|(?<!\p{L})(?:ist|c'est|è|es|é)(?!\p{L})|ich[ ]+wähle|elijo|escojo|je[ ]+choisis|scelgo|escolho"
    r"|я[ ]+выбираю|выбираю|wybieram|(?:故|应|應|本题|因此|所以)*[选選](?:择|擇)?[项項]?|ข้อ|seçiyorum|saya[ ]+memilih"
    r"|tôi[ ]+chọn|chọn)"
)
#: "B is correct", in words that name no answer: "B is right", "B est la bonne réponse", "B是正确的", "Bが正解です".
IS_RIGHT = (
    r"(?:\s*(?:is|was|would be|must be|should be|seems(?: to be)?|looks"
    r"|appears(?: to be)?)(?: \w+ly)?(?: the| a| an)?(?: most| only| best| \w+ly)*"
    r" (?:correct|right|best|true|answer|option|choice|appropriate|accurate|one\b|likely|suitable|better|preferable"
    r"|solution|statement that)"
    r"|\s*(?:ist|wäre) (?:die |der |das )?(?:richtig|korrekt|zutreffend|beste)\w*|\s*est (?:la "
    r"|le )?(?:bonne|correcte?|juste|vraie?|meilleure)"
    r"|\s*es (?:la |el )?(?:opción |respuesta |alternativa )?(?:correct[ao]|verdader[ao]|mejor)"
    r"|\s*è (?:la |l'|il )?(?:risposta |opzione )?(?:corrett[ao]|giust[ao]|esatt[ao]|miglior)"
    r"|\s*é (?:a |o )?(?:resposta |opção |alternativa )?(?:corret[ao]|cert[ao]|melhor)|\s*(?:-"
    r"|это)?\s*(?:правильн|верн|верен)\w*|\s*(?:to |jest )+(?:poprawn|prawidłow|dobr)\w*"
    r"|\s*(?:doğru|doğrudur)|\s*(?:هي|هو) (?:الإجابة |الخيار |الجواب )?(?:الصحيح)\w*|\s*(?:सही|ठीक)"
    r"|\s*(?:là )?(?:đáp án |câu trả lời |phương án )?đúng|\s*adalah (?:jawaban"
    r"|pilihan)?\s*(?:yang )?(?:benar|tepat)"
    r"|(?:选项|選項|项|項)?\s*(?:是|为|為)?\s*(?:正确|正確|对的|對的|最佳|符合)"
    r"|\s*(?:が|は)\s*(?:正解|正しい|答え|適切)|を(?:選|えら)|\s*(?:번|번이|이|가|번은|은)?\s*(?:정답|맞|옳|답))"
)
